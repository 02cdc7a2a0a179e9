"""A machine with two GPUs to which anything may happen: what a hypothesis test does to it, and what has to hold."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from gpuhandoff import names
from gpuhandoff.messages import NO_REPLY, RemoteError, Variant
from gpuhandoff.model.world import State
from gpuhandoff.service.inhibitors import PER_CALLER
from gpuhandoff.simulation.clock import VirtualTimeLoop
from gpuhandoff.simulation.faults import Hang, Operation, before, refuse
from gpuhandoff.simulation.loopback import LoopbackBus
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, twin
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import FOREVER, OPTIONS, Product
from tests.support.tidying import override, tidy, tidy_modules, unnumbered

Result = TypeVar("Result")
GPUS = (GPU, SECOND_GPU)
UNSETTLED = {State.HANDING_OFF, State.RECLAIMING}
LAST_TRIES = 6


class Clockwork(VirtualTimeLoop):
    """A clock that takes no threads, so that a life that failed can be lived again."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do it now."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001
            done.set_exception(error)
        return done


class World:
    """A twin machine on a clock of its own, two callers, and whatever is held, hangs or was moved by others."""

    def __init__(self) -> None:
        self.loop = Clockwork()
        self.directory = Path(tempfile.mkdtemp(prefix="gpuhandoff-life-"))
        self.hangs: list[Hang] = []
        self.cookies: list[tuple[int, int]] = []
        """Caller and cookie."""
        self.foreign = False
        """Whether somebody else has touched anything."""
        self.calls: set[asyncio.Task[None]] = set()
        self.problems: list[str] = []
        self.do(self._begin())

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Carry something out on this machine's clock."""
        return self.loop.run_until_complete(work)

    async def _begin(self) -> None:
        self.product = Product(await twin(), self.directory / "run", state_directory=self.directory / "lib")
        await self.product.start()
        self.callers = [self.product.broker.connect(uid=1000 + number) for number in (0, 1)]
        self.first = self.product.machine.snapshot()

    # What happens

    async def ask(self, caller: int, member: str, gpu: str, options: dict[str, Variant], *, wait: bool) -> None:
        """Have a caller ask for a move, and perhaps wait for its end."""
        bus = self.callers[caller]

        async def call() -> None:
            try:
                await self._call(bus, names.MANAGER_PATH, names.MANAGER_INTERFACE, member, "sa{sv}", gpu, options)
            except RemoteError as error:
                self._expect_sentence(error)

        task = asyncio.create_task(call())
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        if wait:
            await asyncio.wait({task}, timeout=300)
        else:
            await asyncio.sleep(0.01)

    async def cancel(self, caller: int, gpu: str) -> None:
        """Have a caller cancel whatever runs on a GPU."""
        if self.product.daemon is None:
            return
        with contextlib.suppress(RemoteError):  # killed just then
            status = await self.product.status(gpu)
            if status["job"] == "/":
                return
            try:
                await self._call(self.callers[caller], status["job"], names.JOB_INTERFACE, "Cancel", "")
            except RemoteError as error:
                self._expect_sentence(error)

    async def inhibit(self, caller: int, mode: str) -> None:
        """Have a caller object, as often as it may."""
        if self.product.daemon is None:
            return
        where = (names.MANAGER_PATH, names.MANAGER_INTERFACE)
        try:
            reply = await self._call(self.callers[caller], *where, "Inhibit", "sss", "test", "why not", mode)
        except RemoteError as error:
            if not error.name.endswith(".LimitsExceeded") or [one for one, _ in self.cookies].count(caller) < PER_CALLER:
                raise
        else:
            self.cookies.append((caller, reply[0]))

    async def uninhibit(self) -> None:
        """Have somebody stop objecting."""
        caller, cookie = self.cookies.pop()
        with contextlib.suppress(RemoteError):  # another daemon runs, which does not know it
            await self._call(self.callers[caller], names.MANAGER_PATH, names.MANAGER_INTERFACE, "Uninhibit", "u", cookie)

    async def leave(self, caller: int) -> None:
        """Have a caller leave the bus, with everything it held, and another one come."""
        self.callers[caller].drop()
        self.callers[caller] = self.product.broker.connect(uid=1000 + caller)
        self.cookies = [one for one in self.cookies if one[0] != caller]
        await asyncio.sleep(0)

    def kill_at(self, operation: int) -> None:
        """Kill the daemon at one of its next operations."""
        self.product.machine.faults.set(before(self.product.kill), nth=operation, when=_is_work)

    async def start_daemon(self) -> None:
        """Start a daemon, as systemd does, unless one runs."""
        if self.product.daemon is None:
            try:
                await self.product.start_daemon(idle=False)
            except RemoteError:
                self.product.kill()

    async def replace_daemon(self) -> None:
        """Stop the daemon in good order and start the next one, as an upgrade does; one that does not end is killed."""
        stopping = asyncio.create_task(self.product.stop())
        await asyncio.wait({stopping}, timeout=90)
        if not stopping.done():
            self.product.kill()
            await asyncio.wait({stopping})
        await self.start_daemon()

    async def stop_guest(self, gpu: str) -> None:
        """Have a virtual machine end."""
        self.product.machine.stop_guest(gpu)

    async def start_guest(self, gpu: str) -> None:
        """Start a virtual machine, where that can be."""
        with contextlib.suppress(OSError):
            self.product.machine.start_guest(gpu)

    def hang(self, kind: str) -> None:
        """Let the next operation of a kind hang."""
        hang = Hang(self.product.machine.waits)
        self.hangs.append(hang)
        self.product.machine.faults.set(hang.effect, kind=kind)

    async def resolve(self) -> None:
        """Let the oldest hang end."""
        self.hangs.pop(0).resolve()
        await asyncio.sleep(0)

    def refuse(self, kind: str, number: int) -> None:
        """Let the next operation of a kind fail."""
        self.product.machine.faults.set(refuse(number), kind=kind)

    def move(self, what: str, function: str) -> None:
        """Have somebody else touch a function behind everybody's back."""
        self.foreign = True
        machine = self.product.machine
        match what:
            case "override":
                machine.background(_alone(machine.kernel.write(override(function), "vfio-pci")))
            case "clear":
                machine.background(_alone(machine.kernel.write(override(function), "\n")))
            case "unbind":
                driver = machine.kernel.link(f"/sys/bus/pci/devices/{function}/driver")
                if driver is not None and function != GPU:  # the desktop would keep it for ever
                    machine.background(_alone(machine.kernel.write(f"/sys/bus/pci/drivers/{driver}/unbind", function)))
            case "probe":
                machine.background(_alone(machine.kernel.write("/sys/bus/pci/drivers_probe", function)))
            case "load":
                machine.background(_alone(machine.kernel.load_module("vfio_pci")))

    async def reboot(self) -> None:
        """Cut the power."""
        self.hangs.clear()
        self.cookies.clear()
        await self.product.reboot(twin)
        self.callers = [self.product.broker.connect(uid=1000 + number) for number in (0, 1)]

    # What has to hold

    async def check(self) -> None:
        """Status answers at once, in words that are documented."""
        assert not self.problems, self.problems
        if self.product.daemon is None:
            return
        began = self.loop.time()
        for gpu in GPUS:
            try:
                status = await self.product.status(gpu)
            except RemoteError as error:
                if error.name == NO_REPLY:  # killed while it was asked
                    return
                raise
            assert status["state"] in set(State), status
            if status["state"] == State.STUCK:
                assert "stuck at" in status["reason"] or "journal" in status["reason"], status
        assert self.loop.time() - began < 0.01, "Status took its time"

    async def end(self) -> None:
        """Put everything in order that is somebody else's, take every GPU back, and find the machine as it was."""
        self.product.machine.faults.clear()
        while self.hangs:
            await self.resolve()
        for gpu in GPUS:
            self.product.machine.stop_guest(gpu)
        await self.start_daemon()
        while self.cookies:
            await self.uninhibit()
        await asyncio.sleep(200)
        for _ in range(LAST_TRIES):
            for gpu in GPUS:
                if self.foreign:
                    await tidy(self.product, self.first, gpu)
                if (await self.product.status(gpu))["state"] != State.HOST:
                    with contextlib.suppress(RemoteError):
                        await self.product.reclaim(gpu)
                    await asyncio.sleep(60)
        await self.check()
        for gpu in GPUS:
            status = await self.product.status(gpu)
            assert status["state"] == State.HOST, status
        if self.foreign:
            await tidy_modules(self.product.machine, self.first)
        await asyncio.sleep(60)
        left = differences(unnumbered(self.first), unnumbered(self.product.machine.snapshot()))
        assert not left, left
        assert self.product.journals() == []

    def close(self) -> None:
        """Leave nothing behind."""
        try:
            self.do(self._close())
        finally:
            self.loop.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    async def _close(self) -> None:
        self.product.machine.faults.clear()
        while self.hangs:
            await self.resolve()
        await asyncio.sleep(200)
        await self.product.stop()
        self.product.machine.descriptors.clear()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _call(
        self, bus: LoopbackBus, path: str, interface: str, member: str, signature: str, *arguments: Any
    ) -> tuple[Any, ...]:
        return await bus.call(names.BUS_NAME, path, interface, member, signature, arguments, timeout=FOREVER)

    def _expect_sentence(self, error: RemoteError) -> None:
        """Refusals are sentences; what is none is a bug."""
        if "internal error" in error.message or " in the handler" in error.message:
            self.problems.append(str(error))


def options(*, lease: bool, wait: bool, full: bool) -> dict[str, Variant]:
    """Return a handoff's options."""
    chosen = dict(OPTIONS) if full else {"stop-display": OPTIONS["stop-display"]}
    return {**chosen, "lease": Variant("b", lease), "wait": Variant("b", wait)}


def _is_work(operation: Operation) -> bool:
    """Tell what a move does from what is asked about a caller: Status has to answer."""
    return not operation.target.endswith("CheckAuthorization")


async def _alone(work: Coroutine[Any, Any, None]) -> None:
    """Somebody else's write may be refused, or hang."""
    with contextlib.suppress(OSError, Exception):
        await work
