"""The doors through which everything reaches the machine. The real machine and the simulated one stand behind the same.

Two kinds of kernel operations exist. Lock-free reads return at once and are plain functions. Everything that
takes a device lock, runs a driver's code or waits for hardware may block for ever (kernel.md 1.4, 1.5): those are
coroutines with a deadline, carried out in a child process that can be abandoned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from gpuhandoff.model.world import Process

DEADLINE = 30.0
"""Seconds that an operation in the kernel may take unless the step knows better."""


class OverdueError(Exception):
    """An operation has not returned by its deadline. It is still pending in the kernel: touch that device no more.

    `process` is the abandoned child's pid, `state` its one-letter state, `waits_in` the kernel function it sleeps in.
    """

    def __init__(self, operation: str, seconds: float, process: int, state: str = "", waits_in: str = "") -> None:
        super().__init__(f"{operation} has not returned after {seconds:.0f} s")
        self.operation = operation
        self.seconds = seconds
        self.process = process
        self.state = state
        self.waits_in = waits_in


_NAME = re.compile(r"([0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])([a-z]{0,3})")


@dataclass(frozen=True, slots=True)
class Purpose:
    """What an operation is for: a GPU, and a lane of it. Operations in one lane can block one another, others cannot.

    All that touches the card is one lane, as it takes the same device's lock. Without a lane it is about all of them.
    """

    gpu: str = ""
    lane: str = ""
    """Up to three small letters: a process has a name of 15 letters."""

    @property
    def name(self) -> str:
        """What a process is called that works for it, so that a daemon which is started meanwhile knows what it is for."""
        return f"{self.gpu}{self.lane}"

    @classmethod
    def parse(cls, name: str) -> Purpose | None:
        """Return what a process with this name works for; None where no worker is called so."""
        found = _NAME.fullmatch(name)
        return cls(found[1], found[2]) if found else None

    def waits_for(self, other: Purpose) -> bool:
        """Tell whether this must not begin while `other` is pending."""
        return bool(self.gpu) and self.gpu == other.gpu and (not self.lane or other.lane in {"", self.lane})


@dataclass(frozen=True, slots=True)
class Pending:
    """An operation that nobody waits for any more and the kernel has not finished: overdue, or of a daemon that was killed.

    `process` is the child's pid, `state` its one-letter state, `waits_in` the kernel function it sleeps in.
    """

    purpose: Purpose
    operation: str
    seconds: float
    """Since it began, or since it was found."""
    process: int
    state: str
    waits_in: str


class Kernel(Protocol):
    """sysfs, procfs and modules. Paths are absolute, as on the running system. Failures are OSError with their errno."""

    def on_behalf(self, purpose: Purpose) -> Kernel:
        """Return this kernel for work with a purpose: what has to wait for something pending is refused.

        Refused means OverdueError, at once: the device's lock is held, whatever came next would hang as well
        (kernel.md 1.5).
        """

    def pending(self, purpose: Purpose) -> tuple[Pending, ...]:
        """Return what work with this purpose has to wait for: begun, awaited by nobody, not finished."""

    async def settled(self, gpu: str) -> None:
        """Wait, perhaps for ever, until nothing is pending for a GPU, in any lane."""

    def read(self, path: str) -> str:
        """Return a lock-free attribute without its trailing newline; raises OSError."""

    def link(self, path: str) -> str | None:
        """Return the last component of what a symbolic link points to, or None when there is no such link."""

    def resolve(self, path: str) -> str:
        """Return the path with every symbolic link resolved."""

    def entries(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; empty when it does not exist."""

    def exists(self, path: str) -> bool:
        """Tell whether something is there (links are followed)."""

    def version(self, path: str) -> object:
        """Return what is another one, compared by ==, after an ordinary file was written anew; None when it is not there."""

    def device_number(self, path: str) -> int | None:
        """Return a device node's number, or None when it is none or not there. Never opens it."""

    async def read_locked(self, path: str, *, deadline: float = DEADLINE) -> str:
        """Read an attribute that takes the device lock (`driver_override` before 6.12.91)."""

    async def read_head(self, path: str, count: int, *, deadline: float = DEADLINE) -> bytes:
        """Return the first bytes of a file that asks the hardware (`config`), and wakes it; raises OSError."""

    async def write(self, path: str, text: str, *, deadline: float = DEADLINE) -> None:
        """Write `text` in one system call. An empty text is refused: the kernel would ignore it (kernel.md fact 1)."""

    async def load_module(self, name: str, *, deadline: float = DEADLINE) -> None:
        """Load a module and what it needs (modprobe); raises FileNotFoundError when the running kernel has none."""

    async def remove_module(self, name: str, *, deadline: float = DEADLINE) -> None:
        """Remove exactly this module (delete_module): EAGAIN while somebody uses it, ENOENT when it is not loaded."""

    async def sync(self, *, deadline: float = DEADLINE) -> None:
        """Write dirty pages back."""


@dataclass(frozen=True, slots=True)
class OpenNode:
    """A process and the device nodes, of those asked for, that it has open or mapped."""

    process: Process
    nodes: tuple[str, ...]
    ways: tuple[str, ...] = ("open",)
    """open, mapped, dma-buf."""


class Processes(Protocol):
    """Other processes. Each is named by pid and start time; one whose start time differs is gone."""

    async def all(self) -> tuple[Process, ...]:
        """Return every process that is not a kernel thread."""

    async def holding(self, nodes: Collection[str], *, mappings: bool = True) -> tuple[OpenNode, ...]:
        """Return who has any of these device nodes open, deleted nodes included; mapped ones as well, unless told not to.

        A `dmabuf:NAME` among the nodes stands for the dma-bufs of an exporter.
        """

    def state(self, process: Process) -> str | None:
        """Return the one-letter state (R, S, D, T, ...), or None when the process is gone: with its last thread."""

    def signal(self, process: Process, number: int) -> bool:
        """Send a signal; False when the process is gone."""

    async def ended(self, processes: Collection[Process], *, timeout: float) -> bool:
        """Wait until all of them are gone (by pidfd); False when `timeout` seconds passed first."""

    def resident(self, process: Process) -> int:
        """Return resident memory in bytes, 0 when the process is gone."""


@dataclass(frozen=True, slots=True)
class Uevent:
    """A kernel event: `action` (bind, unbind, add, remove, change), the sysfs path of the device, its subsystem."""

    action: str
    path: str
    subsystem: str
    driver: str = ""


class Uevents(Protocol):
    """The kernel's own device events, in order."""

    def subscribe(self, callback: Callable[[Uevent], None]) -> Callable[[], None]:
        """Hand every event to `callback` until the returned function is called."""


class Descriptors(Protocol):
    """Descriptors that outlive the daemon: the service manager keeps a copy and hands it to the next one."""

    def keep(self, name: str, descriptor: int) -> None:
        """Have a copy kept under a name (no colon in it)."""

    def drop(self, name: str) -> None:
        """Have it kept no longer."""

    def inherited(self, name: str) -> int | None:
        """Return the descriptor that an earlier daemon had kept under a name, once; it is the caller's from then on."""

    def forget(self) -> None:
        """Let go of all that was inherited and nobody has asked for."""


class Openings(Protocol):
    """Who opens and closes device nodes, as events."""

    def watch(self, path: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever somebody opens or closes `path`, until the returned function is called.

        A node that is not there yet is heard of when it comes, if its directory is there.
        """
