"""Simulated processes: the device nodes they have open, the signals they get, and how they end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING

from gpuhandoff.host.door import OpenNode
from gpuhandoff.model.world import Process
from gpuhandoff.simulation.lives import outside, shut_to_the_dead
from gpuhandoff.simulation.process import SimulatedProcess
from gpuhandoff.simulation.tree import Node

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

EXIT_SECONDS = 0.05
"""From a deadly signal to the end of the process."""
REACTION_SECONDS = 0.02
"""From a device event to what a program does about it."""
FIRST_PID = 400


class SimulatedProcesses:
    """All processes; also the Processes door."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._processes: dict[int, SimulatedProcess] = {}
        self._next_pid = FIRST_PID

    # What happens on the machine

    def spawn(
        self,
        name: str,
        *,
        uid: int = 0,
        cgroup: str = "/system.slice",
        pid: int | None = None,
        state: str = "S",
        parent: SimulatedProcess | None = None,
        stubborn: bool = False,
        unkillable: bool = False,
        follows: str = "",
        memory: int = 50 << 20,
        opens: Iterable[str] = (),
    ) -> SimulatedProcess:
        """Start a process with these device nodes open, of which those that do not exist are left out."""
        if pid is None:
            self._next_pid += 1
            pid = self._next_pid
        process = SimulatedProcess(
            pid, pid * 10, name, uid, cgroup, state or "S", parent, stubborn, unkillable, follows, memory
        )
        self._processes[pid] = process
        for path in opens:
            self.open(process, path)
        if follows:
            for node in self._machine.tree.nodes():
                self._follow(process, node)
        return process

    def open(self, process: SimulatedProcess, path: str) -> bool:
        """Open a device node; False when there is none."""
        node = self._machine.tree.node(path)
        if node is not None:
            self.hold(process, node)
        return node is not None

    def close(self, process: SimulatedProcess, path: str = "") -> None:
        """Close a device node, or all of them."""
        for node in [node for node in process.nodes if path in {"", node.path}]:
            self.release(process, node)

    def hold(self, process: SimulatedProcess, node: Node) -> None:
        """Have this very node open once more."""
        process.nodes.append(node)
        self._touched(process, node)

    def release(self, process: SimulatedProcess, node: Node) -> None:
        """Close this very node once; nothing happens when it is not open."""
        if node in process.nodes:
            process.nodes.remove(node)
            self._touched(process, node)
            self._machine.waits.wake()

    def end(self, pid: int) -> None:
        """End a process now, whatever its state, and those that end with it a moment later."""
        process = self._processes.pop(pid, None)
        if process is None:
            return
        self.close(process)
        process.ended.set()
        for child in self.children(process):
            self._end_soon(child)
        self._machine.waits.wake()
        for callback in tuple(process.on_end):
            callback()
        self._machine.process_ended(process)

    def get(self, pid: int) -> SimulatedProcess | None:
        """Return the process with this pid."""
        return self._processes.get(pid)

    def named(self, name: str) -> list[SimulatedProcess]:
        """Return the processes of this name."""
        return [process for process in self._processes.values() if process.name == name]

    def children(self, parent: SimulatedProcess) -> list[SimulatedProcess]:
        """Return the processes that end with `parent`."""
        return [process for process in self._processes.values() if process.parent is parent]

    def in_cgroup(self, cgroup: str) -> list[SimulatedProcess]:
        """Return the processes in a cgroup and below it."""
        below = cgroup.rstrip("/") + "/"
        return [process for process in self._processes.values() if f"{process.cgroup}/".startswith(below)]

    def running(self) -> list[SimulatedProcess]:
        """Return every process."""
        return list(self._processes.values())

    def holders(self, nodes: Collection[Node]) -> list[int]:
        """Return the pid for each time one of these very nodes, which may have lost their names, is open."""
        return [process.pid for process in self._processes.values() for node in process.nodes if node in nodes]

    def references(self, module: str) -> int:
        """Return how many open nodes pin a module."""
        return sum(node.module == module for process in self._processes.values() for node in process.nodes)

    def opened(self, device: str) -> bool:
        """Tell whether any node of a device is open."""
        return any(node.device == device for process in self._processes.values() for node in process.nodes)

    def with_path(self, path: str) -> list[SimulatedProcess]:
        """Return who has a node of this path open."""
        return [p for p in self._processes.values() if any(node.path == path for node in p.nodes)]

    def appeared(self, node: Node) -> None:
        """A node has come."""
        for process in self._processes.values():
            self._react(process, partial(self._follow, process, node))

    def vanished(self, node: Node) -> None:
        """A node has lost its name; those who follow it close it, all others keep it open."""
        for process in self._processes.values():
            if process.follows and node.path.startswith(process.follows) and node in process.nodes:
                delay = REACTION_SECONDS * self._machine.waits.pace
                asyncio.get_running_loop().call_later(delay, self._react, process, partial(self.release, process, node))

    def deliver(self, process: SimulatedProcess) -> None:
        """Act on device events and pending signals as far as stopping and freezing let it."""
        while process.unheard and not self._stands_still(process):
            process.unheard.pop(0)()
        if (signal.SIGKILL in process.pending and not process.unkillable) or (
            process.pending & {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
            and not process.stubborn
            and process.state != "D"
            and not self._stands_still(process)
        ):
            self._end_soon(process)

    def _touched(self, process: SimulatedProcess, node: Node) -> None:
        if not process.private_dev:
            self._machine.openings.touched(node.path)

    def _stands_still(self, process: SimulatedProcess) -> bool:
        return process.state == "T" or self._machine.control_groups.is_frozen(process.cgroup)

    def _react(self, process: SimulatedProcess, reaction: Callable[[], None]) -> None:
        """Do what a program does about a device event, later if it stands still now."""
        if self._stands_still(process):
            process.unheard.append(reaction)
        else:
            reaction()

    def _follow(self, process: SimulatedProcess, node: Node) -> None:
        if process.follows and node.path.startswith(process.follows) and node not in process.nodes:
            self.hold(process, node)

    def _end_soon(self, process: SimulatedProcess) -> None:
        delay = EXIT_SECONDS * self._machine.waits.pace
        asyncio.get_running_loop().call_later(delay, self.end, process.pid, context=outside())

    # The door

    async def all(self) -> tuple[Process, ...]:
        """Return every process."""
        return tuple(process.value for process in self._processes.values())

    async def holding(self, nodes: Collection[str], *, mappings: bool = True) -> tuple[OpenNode, ...]:
        """Return who has any of these nodes open."""
        found = []
        for process in self._processes.values():
            paths = sorted({node.path for node in process.nodes if node.path in nodes})
            if paths:
                found.append(OpenNode(process.value, tuple(paths)))
        return tuple(found)

    def state(self, process: Process) -> str | None:
        """Return the state letter."""
        alive = self._alive(process)
        return alive.state if alive else None

    def signal(self, process: Process, number: int) -> bool:
        """Send a signal."""
        shut_to_the_dead()
        alive = self._alive(process)
        if alive is None:
            return False
        if number == signal.SIGSTOP:
            alive.state = "T" if alive.state in {"R", "S"} else alive.state
        elif number == signal.SIGCONT:
            alive.state = "S" if alive.state == "T" else alive.state
            self.deliver(alive)
        elif number != 0:
            alive.pending.add(number)
            self.deliver(alive)
        return True

    async def ended(self, processes: Collection[Process], *, timeout: float) -> bool:
        """Wait until all of them are gone."""
        try:
            async with asyncio.timeout(timeout):
                for process in processes:
                    alive = self._alive(process)
                    if alive is not None:
                        await alive.ended.wait()
        except TimeoutError:
            return all(self._alive(process) is None for process in processes)
        return True

    def resident(self, process: Process) -> int:
        """Return resident memory in bytes."""
        alive = self._alive(process)
        return alive.memory if alive else 0

    def _alive(self, process: Process) -> SimulatedProcess | None:
        alive = self._processes.get(process.pid)
        return alive if alive is not None and alive.start_time == process.start_time else None
