"""The real daemon over a simulated machine, on a private system bus, coming and going as a test wants."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gpuhandoff import names
from gpuhandoff.messages import Match, Variant
from gpuhandoff.service.bus import DBus, connect
from gpuhandoff.simulation.daemon import NAME, PATH
from tests.support.bus import PrivateBus

PATIENCE = 300.0
"""Seconds for what a test waits for: desktops are slow where several of them share a processor."""


class SimulatedDaemon:
    """One daemon process; `call` is a client of it, `simulate` what happens to its machine from outside."""

    def __init__(self, bus: PrivateBus, client: DBus) -> None:
        self.bus = bus
        self._client = client
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.log: list[str] = []

    async def start(self, scenario: str, *words: str) -> None:
        """Start it, and return when it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gpuhandoff", "--simulate", scenario, *words),
            env=self.bus.environment(),
            stderr=asyncio.subprocess.PIPE,
        )
        ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read(self._process, ready))
        await asyncio.wait_for(ready.wait(), PATIENCE)

    async def stop(self) -> None:
        """End it, machine and all."""
        if self._process is None or self._reader is None:
            return
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()
        await self._reader
        self._process = None

    async def call(self, member: str, signature: str = "", *body: Any) -> Any:
        """Call the manager; return its only result, or None."""
        call = (names.BUS_NAME, names.MANAGER_PATH, names.MANAGER_INTERFACE, member)
        reply = await self._client.call(*call, signature, body, timeout=PATIENCE)
        return reply[0] if reply else None

    async def move(self, direction: str, gpu: str, **options: bool | str) -> str:
        """Begin a Handoff or Reclaim; return the job's path. Options are named with _ for -."""
        variants = {name.replace("_", "-"): _variant(value) for name, value in {"wait": False, **options}.items()}
        return str(await self.call(direction, "sa{sv}", gpu, variants))

    async def there_and_back(self, gpu: str) -> int:
        """Hand a GPU over and take it back; return how many changes of its state that makes."""
        await self.move("Handoff", gpu, wait=True)
        await self.move("Reclaim", gpu, wait=True)
        return 4  # handing-off, detached, reclaiming, host

    async def state(self, gpu: str) -> str:
        """Return where a GPU is."""
        status = await self.call("Status")
        return str(status[gpu].value["state"].value)

    async def until(self, gpu: str, state: str) -> None:
        """Return when a GPU is in a state."""
        changed = asyncio.Event()
        match = Match(interface=names.MANAGER_INTERFACE, member="StateChanged")
        forget = await self._client.subscribe(match, lambda _: changed.set())
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.state(gpu) != state:
                    await changed.wait()
                    changed.clear()
        finally:
            forget()

    async def simulate(self, member: str, signature: str = "", *body: Any) -> None:
        """Have something happen on the machine: see gpuhandoff.simulation.trouble and .daemon."""
        await self._client.call(NAME, PATH, NAME, member, signature, body, timeout=PATIENCE)

    async def snapshot(self) -> dict[str, Any]:
        """Return everything observable on the machine."""
        (text,) = await self._client.call(NAME, PATH, NAME, "Snapshot", timeout=PATIENCE)
        return dict(json.loads(text))

    async def result(self, job: str) -> str:
        """Return how a job has ended."""
        get = (names.BUS_NAME, job, "org.freedesktop.DBus.Properties", "Get", "ss", (names.JOB_INTERFACE, "Result"))
        (found,) = await self._client.call(*get, timeout=PATIENCE)
        return str(found.value)

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.log.append(line.decode(errors="replace"))
            if "ready:" in self.log[-1]:
                ready.set()


@asynccontextmanager
async def simulated_daemon(bus: PrivateBus) -> AsyncIterator[SimulatedDaemon]:
    """Have a daemon that is not there yet: `start` starts it."""
    client = await connect(bus.address)
    daemon = SimulatedDaemon(bus, client)
    try:
        yield daemon
    finally:
        await daemon.stop()
        await client.close()


def bind_of(bus: PrivateBus) -> str:
    """Return what makes a bus reachable in an enclosure, at the same address."""
    directory = bus.address.removeprefix("unix:path=").rpartition("/")[0]
    return f"{directory}:{directory}"


def _variant(value: bool | str) -> Variant:
    return Variant("b" if isinstance(value, bool) else "s", value)
