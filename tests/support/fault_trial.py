"""One move with one fault at one moment, from a machine in order to one of three known ends."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from gpuhandoff.messages import NO_REPLY, RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.faults import Perform, refuse
from gpuhandoff.simulation.scenarios import GPU, INTEL_GPU, SCENARIOS, SECOND_GPU
from gpuhandoff.simulation.snapshot import differences
from tests.support import fault_effects
from tests.support.fault_case import Case, UnexpectedError
from tests.support.fault_stroke import TRIGGER, Stroke
from tests.support.fault_verdict import check_cause, check_outcome, is_stuck, is_tolerated
from tests.support.product import OPTIONS, Product

OTHERS = {"igpu-dgpu": INTEL_GPU, "twin": SECOND_GPU}
"""Another GPU of the same machine."""
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
        self.product: Product
        self.stroke: Stroke
        self._failed_starts = 0

    async def run(self) -> str:
        """Return the end: restored, done, stuck, or missed when fault or kill never struck; raises UnexpectedError."""
        case = self.case
        self.product = await Product(await SCENARIOS[case.scenario](), self.directory).start()
        self.stroke = Stroke(case, self.product)
        before = self.product.machine.snapshot()
        with self.stroke.watching_lines():
            try:
                outcome = await self._act()
                missed = self.stroke.missed
                self.stroke.disarm()
                return "missed" if missed else await self._judge(before, outcome)
            finally:
                self.stroke.disarm()
                await self.product.stop()

    async def _act(self) -> RemoteError | None:
        product, faults = self.product, self.product.machine.faults
        match self.case.direction:
            case "reclaim":
                await product.handoff(GPU)
            case "rollback":
                faults.set(refuse(12), kind="write", target=TRIGGER)
            case "recovery":
                faults.set(self._kill, kind="write", target=TRIGGER)
                with contextlib.suppress(RemoteError):
                    await product.handoff(GPU)
        self.stroke.begin(after_trigger=self.case.direction == "rollback")
        outcome = None
        if self.case.direction == "recovery":
            await self._start()
        else:
            try:
                await (product.reclaim(GPU) if self.case.direction == "reclaim" else product.handoff(GPU))
            except RemoteError as error:
                outcome = error
        await self._settle()
        self.stroke.end()
        if self.case.moment == "later" and self.stroke.struck:
            self.stroke.disarm()
            product.kill()
            await self._settle()
            return None
        return outcome

    async def _kill(self, _perform: Perform) -> None:
        self.product.kill()

    async def _settle(self, afterwards: float = AFTERWARDS) -> None:
        """Start a daemon if it was killed, as often as it is, and wait until no job runs."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + LONG
        while True:
            if self.product.daemon is None:
                await self._start()
            elif self._running() is None and not self.stroke.will_kill:
                break
            await asyncio.sleep(0.5)
            if loop.time() > ends:
                raise UnexpectedError(f"a job still runs after {LONG:g} s: {self._running()}")
        await asyncio.sleep(afterwards)
        if self.product.daemon is None or self._running() is not None or self.stroke.will_kill:
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
            check_cause(self.case, outcome.message, self.stroke.places)
        if self.stroke.hang is not None and self.stroke.hang.struck:
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
        assert self.stroke.hang is not None
        if status["state"] == "stuck":
            await asyncio.sleep(600)
            later = await self._status()
            if later["state"] != "stuck":
                raise UnexpectedError(f"while the kernel still hangs, stuck became {later['state']}")
        self.stroke.hang.resolve(5 if self.case.fault.endswith("error") else 0)
        await self._settle(BY_ITSELF)
        if status["state"] == "stuck" and (now := await self._status())["state"] == "stuck":
            raise UnexpectedError(f"the kernel has finished and the GPU is still stuck: {now['reason']}")
        return "stuck" if status["state"] == "stuck" else ""

    async def _status(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.stroke.judging = True
        try:
            status = await self.product.status(GPU)
        except RemoteError as error:
            if not self._died(error):
                raise
            await self._settle()
            began = loop.time()
            status = await self.product.status(GPU)
        finally:
            self.stroke.judging = False
        asks_who_is_late = "PolicyKit1" in self.case.operation.target  # it is asked whether Status is allowed, too
        if loop.time() - began > (fault_effects.LATE if asks_who_is_late else 0.01):
            raise UnexpectedError(f"Status took {loop.time() - began:g} s")
        return status

    def _died(self, error: RemoteError) -> bool:
        """Tell whether the daemon was killed while it was asked: that is this case's kill, and no answer."""
        return error.name == NO_REPLY and self.case.moment != "" and self.product.daemon is None

    async def _check_stuck(self, status: dict[str, Any]) -> None:
        """The step and the cause are named, only this GPU refuses."""
        check_cause(self.case, status["reason"], self.stroke.places)
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
