"""One simulated process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gpuhandoff.model.world import Process
from gpuhandoff.simulation.tree import Node


@dataclass(eq=False, slots=True)
class SimulatedProcess:
    """A process. `state` is R or S when it runs, T when stopped, D when it sleeps uninterruptibly."""

    pid: int
    start_time: int
    name: str
    uid: int = 0
    cgroup: str = "/"
    state: str = "S"
    parent: SimulatedProcess | None = None
    """Ends with it, as a program does that loses its compositor."""
    stubborn: bool = False
    """Ignores SIGTERM."""
    unkillable: bool = False
    """Does not answer SIGKILL either, as in D state."""
    follows: str = ""
    """Opens every node whose path begins so when it appears, and closes it when it goes, as WirePlumber does."""
    memory: int = 50 << 20
    private_dev: bool = False
    """Has a /dev of its own, as libvirt gives QEMU one: other inodes, of whose opening and closing inotify hears nothing."""
    nodes: list[Node] = field(default_factory=list)
    pending: set[int] = field(default_factory=set)
    unheard: list[Callable[[], None]] = field(default_factory=list)
    """What it will do about device events that came while it stood still."""
    on_end: list[Callable[[], None]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def value(self) -> Process:
        """What the Processes door says of it."""
        return Process(self.pid, self.start_time, self.name, self.uid, self.cgroup)
