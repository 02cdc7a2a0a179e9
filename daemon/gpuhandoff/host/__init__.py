"""The only room that touches the machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gpuhandoff.host.door import (
    Descriptors,
    Kernel,
    Openings,
    OpenNode,
    OverdueError,
    Pending,
    Processes,
    Purpose,
    Uevent,
    Uevents,
)
from gpuhandoff.host.logins import Logins
from gpuhandoff.host.units import Units
from gpuhandoff.model.world import Process

__all__ = [
    "STOPPED",
    "Descriptors",
    "Host",
    "Kernel",
    "OpenNode",
    "Openings",
    "OverdueError",
    "Pending",
    "Processes",
    "Purpose",
    "Uevent",
    "Uevents",
]

RECHECK = 0.25
"""Seconds between looks when no event comes: netlink may overflow (kernel.md 9), and some facts have no event."""
STOPPED = frozenset({"T", "t"})
"""States of a process that a signal or a debugger has stopped."""
_CGROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, as the steps and the survey see it."""

    kernel: Kernel
    processes: Processes
    uevents: Uevents
    openings: Openings
    descriptors: Descriptors
    units: Units
    logins: Logins

    def on_behalf(self, purpose: Purpose) -> Host:
        """Return this host for work with a purpose: nothing is begun while what it waits for is pending (see Kernel)."""
        return replace(self, kernel=self.kernel.on_behalf(purpose))

    def stands_still(self, process: Process) -> bool:
        """Tell whether a process is stopped or frozen: it hears of nothing, and lets go of nothing, until it may go on."""
        if self.processes.state(process) in STOPPED:
            return True
        try:  # that of a group is also true where one above it is frozen (cgroup-v2.rst)
            return "frozen 1" in self.kernel.read(f"{_CGROUPS}{process.cgroup}/cgroup.events").splitlines()
        except OSError:
            return False

    async def until(self, fulfilled: Callable[[], bool], *, timeout: float) -> bool:
        """Wait until `fulfilled()` is true, looking again at every kernel event; False after `timeout` seconds."""
        with self._events() as event:
            try:
                async with asyncio.timeout(timeout):
                    while not fulfilled():
                        event.clear()
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(RECHECK):
                                await event.wait()
            except TimeoutError:
                return fulfilled()
        return True

    @contextlib.contextmanager
    def _events(self) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        unsubscribe = self.uevents.subscribe(lambda _: event.set())
        try:
            yield event
        finally:
            unsubscribe()
