"""One move with one fault at one moment, from a machine in order to one of three known ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuhandoff.messages import NO_REPLY, RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.service.daemon import Daemon
from gpuhandoff.simulation.faults import Effect, Hang, Operation, Perform, refuse
from gpuhandoff.simulation.lives import KilledError
from gpuhandoff.simulation.scenarios import GPU, INTEL_GPU, SCENARIOS, SECOND_GPU
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.transaction.journal import Journal
from tests.support import fault_effects
from tests.support.fault_case import Case, Done, UnexpectedError
from tests.support.fault_verdict import check_cause, check_outcome, is_stuck, is_tolerated
from tests.support.product import OPTIONS, Product

OTHERS = {"igpu-dgpu": INTEL_GPU, "twin": SECOND_GPU}
"""Another GPU of the same machine."""
TRIGGER = "/nr_hugepages"
LONG = 900.0
"""Seconds of the machine's time in which every job has ended."""
AFTERWARDS = 3.0
"""Seconds in which sessions and sound cards are there again."""
BY_ITSELF = 60.0
STARTS = 3


class Trial:
    """A product in a directory of its own, in which one case is tried."""

    def __init__(self, case: Case, directory: Path) -> None:
        self.case = case
        self.directory = directory
        self.struck = False
        self.seen: list[Done] = []
        self._step, self._phase = "", ""
        self._counts: Counter[Operation] = Counter()
        self._hang: Hang | None = None
        self._struck_at: tuple[str, str] = ("", "")
        self._armed = ""
        self._noting = False
        self._waits_for_trigger = False
        self._judging = False
        self._will_kill = False
        self._failed_starts = 0

    async def run(self) -> str:
        """Return the end: restored, done, stuck, or missed when fault or kill never struck; raises UnexpectedError."""
        case = self.case
        self.product = await Product(await SCENARIOS[case.scenario](), self.directory).start()
        self.product.on_start = self._follow
        self._follow(self.product.daemon)
        before = self.product.machine.snapshot()
        with journal_lines(self._on_line):
            try:
                outcome = await self._act()
                missed = case.operation.kind and (self._armed or not self.struck)
                self._armed = ""
                return "missed" if missed else await self._judge(before, outcome)
            finally:
                self._armed = ""
                await self.product.stop()

    async def _act(self) -> RemoteError | None:
        product, faults = self.product, self.product.machine.faults
        match self.case.direction:
            case "reclaim":
                await product.handoff(GPU)
            case "rollback":
                faults.set(refuse(12), kind="write", target=TRIGGER)
            case "recovery":
                faults.set(self._kill_before, kind="write", target=TRIGGER)
                with contextlib.suppress(RemoteError):
                    await product.handoff(GPU)
        self._set_fault()
        faults.on_operation = self._on_operation
        self._waits_for_trigger = self.case.direction == "rollback"
        self._noting = not self._waits_for_trigger
        outcome = None
        if self.case.direction == "recovery":
            await self._start()
        else:
            try:
                await (product.reclaim(GPU) if self.case.direction == "reclaim" else product.handoff(GPU))
            except RemoteError as error:
                outcome = error
        await self._settle()
        self._noting = False
        if self.case.moment == "later" and self.struck:
            self._armed = ""
            product.kill()
            await self._settle()
            return None
        return outcome

    def _set_fault(self) -> None:
        case, machine = self.case, self.product.machine
        if not case.operation.kind:
            return
        inner, self._hang = fault_effects.make(machine, case.operation, case.fault)
        nth = -case.nth if case.fault.endswith(" always") else case.nth
        machine.faults.set(self._effect(inner), nth=nth, when=self._concerns)

    def _concerns(self, operation: Operation) -> bool:
        """Tell the operation of the case; what we ask ourselves in order to judge is none."""
        if self._judging or not (self._noting or self.struck):
            return False
        return _lasting(operation) == self.case.operation

    def _effect(self, inner: Effect) -> Effect:
        async def effect(perform: Perform) -> Any:
            if self.struck:
                return await inner(perform)
            self.struck = True
            self._struck_at = (self._step, self._phase)
            match self.case.moment:
                case "before":
                    self.product.kill()
                    return None
                case "during":
                    self.product.kill()
                case "after":
                    self._will_kill = True
                    try:
                        return await inner(perform)
                    finally:
                        self._will_kill = False
                        self.product.kill()
                case moment:
                    self._armed = moment
            return await inner(perform)

        return effect

    async def _kill_before(self, _perform: Perform) -> None:
        self.product.kill()

    def _on_operation(self, operation: Operation) -> None:
        if self._waits_for_trigger and operation.target.endswith(TRIGGER):
            self._waits_for_trigger, self._noting = False, True
            return
        operation = _lasting(operation)
        if self._noting:
            self._counts[operation] += 1
            self.seen.append(Done(operation, self._counts[operation], self._step, self._phase))
        if self._armed == "undo" and self._phase == "undo":
            self._armed = ""
            self.product.kill()

    def _on_line(self, write: Callable[[], None]) -> None:
        if self._armed == "unwritten":
            self._armed = ""
            self.product.kill()
            raise KilledError
        write()
        if self._armed == "written":
            self._armed = ""
            self.product.kill()
            raise KilledError

    def _follow(self, daemon: Daemon | None) -> None:
        """Know which step a daemon is at."""
        if daemon is None:
            return
        observe = daemon.jobs.observe

        def follow(job: Any, step: str, phase: str, index: int, count: int) -> None:
            self._step, self._phase = step, phase
            observe(job, step, phase, index, count)

        daemon.jobs.observe = follow  # type: ignore[method-assign]

    async def _settle(self, afterwards: float = AFTERWARDS) -> None:
        """Start a daemon if it was killed, as often as it is, and wait until no job runs."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + LONG
        while True:
            if self.product.daemon is None:
                await self._start()
            elif self._running() is None and not self._will_kill:
                break
            await asyncio.sleep(0.5)
            if loop.time() > ends:
                raise UnexpectedError(f"a job still runs after {LONG:g} s: {self._running()}")
        await asyncio.sleep(afterwards)
        if self.product.daemon is None or self._running() is not None or self._will_kill:
            await self._settle(afterwards)

    async def _start(self) -> None:
        """Be systemd: a daemon that cannot start is started again, for as long as what keeps it from starting lasts."""
        try:
            await self.product.start_daemon(idle=False)
        except RemoteError:
            self.product.kill()
            self._failed_starts += 1
            if self._failed_starts == STARTS:
                self.product.machine.faults.clear()

    def _running(self) -> str | None:
        job = self.product.jobs.running(PciAddress.parse(GPU))
        return None if job is None else f"{job.request.operation} at {job.step}"

    async def _judge(self, before: dict[str, Any], outcome: RemoteError | None) -> str:
        product = self.product
        status = await self._status()
        check_outcome(self.case, outcome, status)
        end = "stuck" if status["state"] == "stuck" else ""
        if end:
            await self._check_stuck(status)
        elif outcome is not None and is_stuck(outcome):  # and has gone on by itself since
            end = "stuck"
            check_cause(self.case, outcome.message, self._struck_at)
        if self._hang is not None and self._hang.struck:
            end = await self._until_resolved(status)
        elif end:
            await self._reclaim()
        status = await self._status()
        if status["state"] == "detached":
            self._check_away(status)
            end = end or "done"
            await self._reclaim()
            status = await self._status()
        if status["state"] != "host":
            raise UnexpectedError(f"the GPU ends in {status['state']}: {status['reason']}")
        left = [line for line in differences(before, product.machine.snapshot()) if not is_tolerated(self.case, line)]
        if left or product.journals():
            raise UnexpectedError(f"not restored: {'; '.join([*left[:6], *product.journals()])}")
        return end or "restored"

    async def _reclaim(self) -> None:
        """Have the GPU taken back by a machine in order; it may just have come back by itself."""
        self.product.machine.faults.clear()
        try:
            await self.product.reclaim(GPU)
        except RemoteError as error:
            if not error.name.endswith(".WrongState") and not self._died(error):
                raise
        await self._settle()

    async def _until_resolved(self, status: dict[str, Any]) -> str:
        """Have the kernel finish: whatever was stuck because of it has to go on by itself."""
        assert self._hang is not None
        if status["state"] == "stuck":
            await asyncio.sleep(600)
            later = await self._status()
            if later["state"] != "stuck":
                raise UnexpectedError(f"while the kernel still hangs, stuck became {later['state']}")
        self._hang.resolve(5 if self.case.fault.endswith("error") else 0)
        await self._settle(BY_ITSELF)
        if status["state"] == "stuck" and (now := await self._status())["state"] == "stuck":
            raise UnexpectedError(f"the kernel has finished and the GPU is still stuck: {now['reason']}")
        return "stuck" if status["state"] == "stuck" else ""

    async def _status(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._judging = True
        try:
            status = await self.product.status(GPU)
        except RemoteError as error:
            if not self._died(error):
                raise
            await self._settle()
            began = loop.time()
            status = await self.product.status(GPU)
        finally:
            self._judging = False
        asks_who_is_late = "PolicyKit1" in self.case.operation.target  # it is asked whether Status is allowed, too
        if loop.time() - began > (fault_effects.LATE if asks_who_is_late else 0.01):
            raise UnexpectedError(f"Status took {loop.time() - began:g} s")
        return status

    def _died(self, error: RemoteError) -> bool:
        """Tell whether the daemon was killed while it was asked: that is this case's kill, and no answer."""
        return error.name == NO_REPLY and self.case.moment != "" and self.product.daemon is None

    async def _check_stuck(self, status: dict[str, Any]) -> None:
        """The step and the cause are named, only this GPU refuses."""
        check_cause(self.case, status["reason"], self._struck_at)
        if not await self._refusal(GPU):
            raise UnexpectedError("the stuck GPU does not refuse a handoff")
        other = OTHERS.get(self.case.scenario)
        if other is not None and (name := await self._refusal(other)) in {"Stuck", "Busy", "WrongState"}:
            raise UnexpectedError(f"another GPU refuses as well: {name}")

    async def _refusal(self, gpu: str) -> str:
        try:
            await self.product.call("Plan", "ssa{sv}", gpu, "handoff", OPTIONS)
        except RemoteError as error:
            return error.name.rpartition(".")[2]
        return ""

    def _check_away(self, status: dict[str, Any]) -> None:
        machine = self.product.machine
        drivers = {
            address: device.driver.name if device.driver is not None else None
            for address, device in machine.pci.devices.items()
            if address.startswith(GPU[:-1])
        }
        if set(drivers.values()) != {"vfio-pci"} or not self.product.journals():
            raise UnexpectedError(f"detached, but {drivers}, journals {self.product.journals()}, {status['reason']}")


@contextlib.contextmanager
def journal_lines(on_line: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Hand every line of any journal to `on_line`, which writes it or does not."""
    append = Journal.append

    def appended(self: Journal, **line: Any) -> None:
        on_line(lambda: append(self, **line))

    Journal.append = appended  # type: ignore[method-assign]
    try:
        yield
    finally:
        Journal.append = append  # type: ignore[method-assign]


def _lasting(operation: Operation) -> Operation:
    """Return an operation without the number that polkit's questions carry."""
    return replace(operation, detail=_QUESTION.sub("", operation.detail))


_QUESTION = re.compile(r" gpuhandoff-\d+-\d+$")
