"""The Kernel door of the simulated machine: deadlines, abandoned operations, and reads that are really lock-free."""

from __future__ import annotations

import asyncio
import errno
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.host.door import DEADLINE, OverdueError, Pending, Purpose
from gpuhandoff.simulation.faults import Operation
from gpuhandoff.simulation.lives import outside, shut_to_the_dead
from gpuhandoff.simulation.tree import failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.process import SimulatedProcess

CALL_SECONDS = 0.002
"""What the way through a child process costs, and a moment in which a job can be cancelled."""


NONE = Purpose()


@dataclass(slots=True)
class Flying:
    """An operation under way in the simulated kernel. It belongs to the machine, not to the caller: it outlives a daemon."""

    operation: Operation
    purpose: Purpose
    owner: object
    began: float
    child: SimulatedProcess | None = None
    """The process that was left behind with it, once it was overdue."""


class SimulatedKernel:
    """sysfs, procfs and modules of a simulated machine, as one daemon reaches them.

    When the caller gives up, an operation stays pending and completes when its cause goes (kernel.md 1.5).
    """

    def __init__(self, machine: SimulatedMachine, purpose: Purpose = NONE, owner: object = None) -> None:
        self._machine = machine
        self._tree = machine.tree
        self._purpose = purpose
        self._owner = owner or object()

    def on_behalf(self, purpose: Purpose) -> SimulatedKernel:
        """Return this kernel for work with a purpose."""
        return SimulatedKernel(self._machine, purpose, self._owner)

    def pending(self, purpose: Purpose) -> tuple[Pending, ...]:
        """Return what has to be waited for: overdue, or an earlier daemon's."""
        return tuple(self._shown(task, one) for task, one in self._left_behind() if purpose.waits_for(one.purpose))

    async def settled(self, gpu: str) -> None:
        """Wait until the kernel has finished with a GPU."""
        while waiting := {task for task, flying in self._left_behind() if flying.purpose.gpu == gpu}:
            await asyncio.wait(waiting)

    def read(self, path: str) -> str:
        """Return an attribute without its trailing newline."""
        if path.endswith("/driver_override") and self._machine.override_takes_lock:
            raise RuntimeError(f"{path} takes the device lock on this kernel (kernel.md fact 7): use read_locked")
        return self._read(path)

    def link(self, path: str) -> str | None:
        """Return the last component of a link's target."""
        link = self._tree.find_link(path)
        return link.target.rsplit("/", 1)[-1] if link else None

    def resolve(self, path: str) -> str:
        """Return the path with every link resolved."""
        return self._tree.resolve(path)

    def entries(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return self._tree.names(path)

    def exists(self, path: str) -> bool:
        """Tell whether something is there."""
        return self._tree.find(path) is not None

    def version(self, path: str) -> object:
        """Return the text itself."""
        return self._read(path) if self.exists(path) else None

    def device_number(self, path: str) -> int | None:
        """Return the number of a device node."""
        node = self._tree.node(path)
        return node.number if node else None

    async def read_locked(self, path: str, *, deadline: float = DEADLINE) -> str:
        """Read an attribute that takes the device lock."""
        text: list[str] = []

        async def perform() -> None:
            device = self._machine.pci.device_of(path)
            if device is not None and self._machine.override_takes_lock:
                await self._machine.waits.until(lambda: not device.lock.locked(), "driver_override_show")
            text.append(self._read(path))

        await self._perform(Operation("read", path), perform, deadline)
        return text[0] if text else ""

    async def read_head(self, path: str, count: int, *, deadline: float = DEADLINE) -> bytes:
        """Read the beginning of a file whose text here is hexadecimal."""
        text: list[str] = []

        async def perform() -> None:
            text.append(self._read(path))

        await self._perform(Operation("read", path), perform, deadline)
        return bytes.fromhex(text[0])[:count] if text else b""

    async def write(self, path: str, text: str, *, deadline: float = DEADLINE) -> None:
        """Write a text, all at once."""
        if not text:
            raise ValueError(f"an empty write to {path} would do nothing (kernel.md fact 1)")

        async def perform() -> None:
            attribute = self._tree.attribute(path)
            if attribute.write is None:
                raise failure(errno.EACCES, path)
            done = attribute.write(text)
            if inspect.isawaitable(done):
                await done

        await self._perform(Operation("write", path, text), perform, deadline)

    async def load_module(self, name: str, *, deadline: float = DEADLINE) -> None:
        """Have a module loaded, with those it needs."""
        await self._perform(Operation("load-module", name), lambda: self._machine.modules.load(name), deadline)

    async def remove_module(self, name: str, *, deadline: float = DEADLINE) -> None:
        """Remove exactly this module."""
        await self._perform(Operation("remove-module", name), lambda: self._machine.modules.remove(name), deadline)

    async def sync(self, *, deadline: float = DEADLINE) -> None:
        """Write dirty pages back."""
        await self._perform(Operation("sync", "/"), self._machine.memory.sync, deadline)

    def _read(self, path: str) -> str:
        attribute = self._tree.attribute(path)
        if attribute.read is None:
            raise failure(errno.EACCES, path)
        return attribute.read().removesuffix("\n")

    async def _perform(self, operation: Operation, perform: Callable[[], Awaitable[None]], deadline: float) -> None:
        """Do it in a task of its own; raise OverdueError and leave the task be when `deadline` passes.

        A cancelled caller waits for the kernel first (docs/architecture.md), as nobody else watches the operation.
        """
        for one in self.pending(self._purpose):
            raise OverdueError(one.operation, one.seconds, one.process, one.state, one.waits_in)
        shut_to_the_dead()
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(self._carry_out(operation, perform), context=outside())
        flying = Flying(operation, self._purpose, self._owner, loop.time())
        self._machine.operations[task] = flying
        task.add_done_callback(self._done, context=outside())
        ends = loop.time() + deadline
        cancelled = False
        while not task.done() and (left := ends - loop.time()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError:
                cancelled = True
        if not task.done():
            self._leave_behind(task, flying)
            if not cancelled:
                one = self._shown(task, flying)
                raise OverdueError(one.operation, deadline, one.process, one.state, one.waits_in)
        if cancelled:
            raise asyncio.CancelledError
        task.result()

    async def _carry_out(self, operation: Operation, perform: Callable[[], Awaitable[None]]) -> None:
        await self._machine.waits.takes(CALL_SECONDS)
        await self._machine.faults.guard(operation, perform)

    def _leave_behind(self, task: asyncio.Task[object], flying: Flying) -> None:
        """Leave a child process behind that ends when the operation does, in the state that ps would show."""
        child = self._machine.processes.spawn(
            "gpuhandoff-call",
            cgroup="/system.slice/gpuhandoffd.service",
            state=self._machine.waits.where(task).state,
            unkillable=True,
        )
        task.add_done_callback(lambda _: self._machine.processes.end(child.pid), context=outside())
        flying.child = child

    def _left_behind(self) -> list[tuple[asyncio.Task[object], Flying]]:
        """Return what nobody waits for: overdue, or an earlier daemon's."""
        return [
            (task, flying)
            for task, flying in self._machine.operations.items()
            if flying.child is not None or flying.owner is not self._owner
        ]

    def _shown(self, task: asyncio.Task[object], flying: Flying) -> Pending:
        sleep = self._machine.waits.where(task)
        return Pending(
            flying.purpose,
            f"{flying.operation.kind} {flying.operation.target} {flying.operation.detail}".strip(),
            asyncio.get_running_loop().time() - flying.began,
            flying.child.pid if flying.child is not None else 0,
            sleep.state,
            sleep.function,
        )

    def _done(self, task: asyncio.Task[object]) -> None:
        del self._machine.operations[task]
        if not task.cancelled():
            task.exception()
