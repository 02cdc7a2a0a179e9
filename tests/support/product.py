"""The whole daemon over a simulated machine, in one process and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from gpuhandoff import names
from gpuhandoff.config import Configuration
from gpuhandoff.messages import Match, Signal, Variant
from gpuhandoff.service.daemon import Daemon, Setting
from gpuhandoff.service.jobs import Jobs
from gpuhandoff.simulation.archive import SimulatedArchive
from gpuhandoff.simulation.clock import VirtualTimeLoop
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.lives import Life
from gpuhandoff.simulation.loopback import LoopbackBroker, LoopbackBus
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.steps.inhibit_sleep import InhibitSleep

OPTIONS = {
    "stop-display": Variant("b", True),
    "cpus": Variant("s", "0-1"),
    "memory": Variant("t", 1 << 30),
    "hugepages": Variant("s", "static"),
}
FOREVER = 3600.0


class Product:
    """A machine, a bus, a daemon that can be killed and started again, and a client."""

    def __init__(
        self,
        machine: SimulatedMachine,
        directory: Path,
        configuration: Configuration | None = None,
        state_directory: Path | None = None,
        hook_patterns: Path | None = None,
    ) -> None:
        self.machine = machine
        self.directory = directory
        self.configuration = configuration or Configuration()
        self.state_directory = state_directory
        self.hook_patterns = hook_patterns
        self.archive = SimulatedArchive(machine)
        self.broker = LoopbackBroker()
        self.client = self.broker.connect(uid=1000)
        self.signals: list[Signal] = []
        self.announced: list[str] = []
        self.daemon: Daemon | None = None
        self.on_start: Callable[[Daemon], None] = lambda _: None
        """Told of every daemon before it begins."""
        self._bus: LoopbackBus | None = None
        self._life = Life()
        self._killed = asyncio.Event()
        self._own: set[int] = set()
        """Descriptors that are not the daemon's."""
        self._left: set[int] = set()
        self._dead: list[Life] = []

    async def start(self) -> Product:
        """Have the stand-ins answer, listen, and start a daemon."""
        await self._serve()
        await self.start_daemon()
        return self

    async def start_daemon(self, *, idle: bool = True) -> None:
        """Start a daemon and wait until it has dealt with what an earlier one left, or is killed."""
        self._life, self._killed, self._own = Life(), asyncio.Event(), _descriptors() - self._machines()
        with self._life.lived():
            self._bus = self.broker.connect()
            host = simulated_host(self.machine, self._bus)
            setting = Setting(
                self._bus,
                host,
                self.directory,
                lambda: self.configuration,
                self.state_directory,
                self.archive,
                self.announced.append,
                self.hook_patterns,
            )
            self.daemon = daemon = Daemon(setting)
            self.on_start(daemon)
            starting = asyncio.create_task(daemon.start())
        if await self._lives_through(starting) and idle:
            await self.idle()

    def kill(self) -> None:
        """SIGKILL: the daemon stops at this instant, wherever it is, and the machine sees what it sees of a dead process.

        What it has asked of the kernel, of systemd or logind goes on. Called by the daemon itself, raise KilledError next.
        """
        if self.daemon is None or self._bus is None:
            return
        self.daemon = None
        left = _descriptors() - self._own - self._left - self._machines()
        for descriptor in left:  # the number stays taken until nothing can close it any more
            os.dup2(_nothing(), descriptor, inheritable=False)
        self._bus.drop()
        cast("VirtualTimeLoop", asyncio.get_running_loop()).end(self._life)
        self._killed.set()
        self._left |= left
        self._dead.append(self._life)

    async def reboot(self, build: Callable[[], Awaitable[SimulatedMachine]]) -> None:
        """Cut the power, and boot the same machine: nothing runs on, /run is empty; /var/lib stays."""
        self.kill()
        self.machine.descriptors.clear()
        self.machine = await build()
        self.archive = SimulatedArchive(self.machine)
        self.machine.boot_id = str(uuid.uuid4())
        shutil.rmtree(self.directory, ignore_errors=True)
        self.broker = LoopbackBroker()
        self.client = self.broker.connect(uid=1000)
        await self.start()

    @property
    def jobs(self) -> Jobs:
        """The running daemon's jobs."""
        if self.daemon is None:
            raise RuntimeError("no daemon runs")
        return self.daemon.jobs

    async def idle(self) -> None:
        """Wait until no job runs."""
        while (daemon := self.daemon) is not None:
            running = [job for gpu in daemon.fleet.world.gpus if (job := daemon.jobs.running(gpu.address)) is not None]
            if not running:
                return
            for job in running:
                await self._lives_through(asyncio.create_task(job.finished.wait()))

    async def call(self, member: str, signature: str = "", *arguments: Any) -> Any:
        """Call the manager as the client; raises RemoteError."""
        reply = await self.client.call(
            names.BUS_NAME, names.MANAGER_PATH, names.MANAGER_INTERFACE, member, signature, arguments, timeout=FOREVER
        )
        return reply[0] if reply else None

    async def handoff(self, gpu: str, **options: Variant) -> str:
        """Hand off with everything that can be asked for."""
        return str(await self.call("Handoff", "sa{sv}", gpu, {**OPTIONS, **options}))

    async def reclaim(self, gpu: str) -> str:
        """Take back."""
        return str(await self.call("Reclaim", "sa{sv}", gpu, {}))

    async def status(self, gpu: str) -> dict[str, Any]:
        """Return one GPU's status."""
        reply = await self.call("Status")
        return {key: variant.value for key, variant in reply[gpu].value.items()}

    def states(self) -> list[str]:
        """Return the states that were announced."""
        return [str(signal.body[1]) for signal in self.signals if signal.member == "StateChanged"]

    def journals(self) -> list[str]:
        """Return the journals that are open."""
        return sorted(path.name for path in self.directory.iterdir()) if self.directory.exists() else []

    async def stop(self) -> None:
        """Stop the daemon as SIGTERM does."""
        if self.daemon is not None and self._bus is not None:
            with self._life.lived():
                stopping = asyncio.create_task(self.daemon.stop())
            if await self._lives_through(stopping):
                await self._bus.close()
                self._close_descriptors(self.daemon)
                self.daemon = None
        self._bury()

    @staticmethod
    def _close_descriptors(daemon: Daemon) -> None:
        """Do what the end of a process does: the sleep inhibitor is held open by nothing but the service manager then."""
        held = cast("InhibitSleep", daemon.steps["inhibit-sleep"])._held
        while held:
            os.close(held.popitem()[1])

    async def _serve(self) -> None:
        await self.machine.serve(self.broker)
        for member in ("StateChanged", "DriverChanged", "JobRemoved", "Progress", "PrepareForHandoff"):
            await self.client.subscribe(Match(names.MANAGER_INTERFACE, member), self.signals.append)

    async def _lives_through(self, work: asyncio.Task[Any]) -> bool:
        """Wait for the daemon's work; False when it is killed first."""
        killed = asyncio.create_task(self._killed.wait())
        await asyncio.wait({work, killed}, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if self._killed.is_set():
            return False
        await work
        return True

    def _machines(self) -> set[int]:
        """Return descriptors of the machine's other processes: they close them whenever they like."""
        return {*self.machine.logind.inhibitors, *self.machine.descriptors.kept.values()}

    def _bury(self) -> None:
        """Close what killed daemons had open, now that their code goes as well."""
        for life in self._dead:
            life.bury()
        self._dead.clear()
        for descriptor in self._left:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._left.clear()


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if _open(int(name))}


def _open(descriptor: int) -> bool:
    """Tell an open descriptor, be it of a pipe, from the one that listed them all."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _nothing() -> int:
    """Return a descriptor of /dev/null, which stays open."""
    global _null  # noqa: PLW0603
    if _null < 0:
        _null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return _null


_null = -1
