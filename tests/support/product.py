"""The whole daemon over a simulated machine, in one process and in virtual time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from gpuhandoff import names
from gpuhandoff.config import Configuration
from gpuhandoff.messages import Match, Signal, Variant
from gpuhandoff.service.daemon import Daemon, Setting
from gpuhandoff.service.jobs import Jobs
from gpuhandoff.simulation.archive import SimulatedArchive
from gpuhandoff.simulation.host import simulated_host
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
    ) -> None:
        self.machine = machine
        self.directory = directory
        self.state_directory = state_directory
        self.archive = SimulatedArchive(machine)
        self.broker = LoopbackBroker()
        self.client = self.broker.connect(uid=1000)
        self.signals: list[Signal] = []
        self._configuration = configuration or Configuration()
        self._bus: LoopbackBus | None = None
        self.daemon: Daemon | None = None

    async def start(self) -> Product:
        """Have the stand-ins answer, listen, and start a daemon."""
        await self.machine.serve(self.broker)
        for member in ("StateChanged", "DriverChanged", "JobRemoved", "Progress", "PrepareForHandoff"):
            await self.client.subscribe(Match(names.MANAGER_INTERFACE, member), self.signals.append)
        await self.start_daemon()
        return self

    async def start_daemon(self) -> None:
        """Start a daemon and wait until it has dealt with what an earlier one left."""
        self._bus = self.broker.connect()
        host = simulated_host(self.machine, self._bus)
        setting = Setting(self._bus, host, self.directory, lambda: self._configuration, self.state_directory, self.archive)
        self.daemon = Daemon(setting)
        await self.daemon.start()
        await self.idle()

    @property
    def jobs(self) -> Jobs:
        """The running daemon's jobs."""
        if self.daemon is None:
            raise RuntimeError("no daemon runs")
        return self.daemon.jobs

    async def idle(self) -> None:
        """Wait until no job runs."""
        if self.daemon is not None:
            for gpu in self.daemon.fleet.world.gpus:
                job = self.daemon.jobs.running(gpu.address)
                if job is not None:
                    await job.finished.wait()

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
            await self.daemon.stop()
            await self._bus.close()
            self._close_descriptors(self.daemon)
            self.daemon = None

    @staticmethod
    def _close_descriptors(daemon: Daemon) -> None:
        """Do what the end of a process does: the sleep inhibitor is held open by nothing but the service manager then."""
        held = cast("InhibitSleep", daemon.steps["inhibit-sleep"])._held
        while held:
            os.close(held.popitem()[1])
