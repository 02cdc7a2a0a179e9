"""The Kernel door of the simulated machine: deadlines, abandoned operations, and reads that are really lock-free."""

from __future__ import annotations

import asyncio
import errno
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gpuhandoff.host.door import DEADLINE, OverdueError
from gpuhandoff.simulation.faults import Operation
from gpuhandoff.simulation.tree import failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

CALL_SECONDS = 0.002
"""What the way through a child process costs, and a moment in which a job can be cancelled."""


class SimulatedKernel:
    """sysfs, procfs and modules of a simulated machine.

    An operation belongs to the machine, not to the caller: when the caller gives up, it stays pending and completes
    when its cause goes (kernel.md 1.5).
    """

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._tree = machine.tree
        self.pending: dict[asyncio.Task[object], Operation] = {}

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
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(self._carry_out(operation, perform))
        self.pending[task] = operation
        task.add_done_callback(self._done)
        ends = loop.time() + deadline
        cancelled = False
        while not task.done() and (left := ends - loop.time()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError:
                cancelled = True
        if not task.done():
            error = self._overdue(task, operation, deadline)
            if not cancelled:
                raise error
        if cancelled:
            raise asyncio.CancelledError
        task.result()

    async def _carry_out(self, operation: Operation, perform: Callable[[], Awaitable[None]]) -> None:
        await self._machine.waits.takes(CALL_SECONDS)
        await self._machine.faults.guard(operation, perform)

    def _overdue(self, task: asyncio.Task[object], operation: Operation, deadline: float) -> OverdueError:
        """Leave a child process behind that ends when the operation does, in the state that ps would show."""
        sleep = self._machine.waits.where(task)
        child = self._machine.processes.spawn(
            "gpuhandoff-call", cgroup="/system.slice/gpuhandoffd.service", state=sleep.state, unkillable=True
        )
        task.add_done_callback(lambda _: self._machine.processes.end(child.pid))
        return OverdueError(
            f"{operation.kind} {operation.target} {operation.detail}".strip(),
            deadline,
            child.pid,
            sleep.state,
            sleep.function,
        )

    def _done(self, task: asyncio.Task[object]) -> None:
        del self.pending[task]
        if not task.cancelled():
            task.exception()
