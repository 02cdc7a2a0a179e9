"""The service manager's units: their processes, their states, their CPU sets (kernel.md 6, 11)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuhandoff.simulation.process import SimulatedProcess

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

START_SECONDS = 0.05
RESTART_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Program:
    """A program that a unit or a session starts, and what it opens."""

    name: str
    uid: int = 0
    opens: tuple[str, ...] = ()
    follows: str = ""
    stubborn: bool = False
    memory: int = 50 << 20
    below: str = ""
    """Which group below the unit's own it runs in: a user's manager has units of its own."""


@dataclass(eq=False, slots=True)
class SimulatedUnit:
    """A loaded unit."""

    name: str
    control_group: str
    programs: tuple[Program, ...] = ()
    aliases: tuple[str, ...] = ()
    active_state: str = "inactive"
    sub_state: str = "dead"
    restart: bool = False
    """Restart=always, as all display managers have it: only a stop job ends them (kernel.md 11)."""
    stop_timeout: float = 90.0
    needs_module: str = ""
    """Starting fails while this kernel module is not loaded."""
    after_start: Callable[[], Awaitable[None]] | None = None
    allowed_cpus: frozenset[int] = frozenset()
    cpuset: frozenset[int] = frozenset()
    """What cpuset.cpus says: systemd does not widen it again when AllowedCPUs becomes empty (systemd#43846)."""
    frozen: bool = False
    main: SimulatedProcess | None = None

    @property
    def kind(self) -> str:
        """Service, Slice, Scope: the unit's type interface."""
        return self.name.rsplit(".", 1)[-1].capitalize()


@dataclass(slots=True)
class Units:
    """Every loaded unit, by name."""

    machine: SimulatedMachine
    units: dict[str, SimulatedUnit] = field(default_factory=dict)
    listeners: list[Callable[[SimulatedUnit], None]] = field(default_factory=list)

    def add(self, unit: SimulatedUnit, *, active: bool = False) -> SimulatedUnit:
        """Load a unit."""
        self.units[unit.name] = unit
        if active:
            self.machine.control_groups.add(unit.control_group)
            self._enter(unit, "active", "running" if unit.kind != "Slice" else "active")
        return unit

    def drop(self, unit: SimulatedUnit) -> None:
        """Unload a unit that has ended, such as a session's scope."""
        self._enter(unit, "inactive", "dead")
        self.machine.control_groups.remove(unit.control_group)
        self.units.pop(unit.name, None)

    def find(self, name: str) -> SimulatedUnit | None:
        """Return a unit by name or alias."""
        return self.units.get(name) or next((unit for unit in self.units.values() if name in unit.aliases), None)

    def of_process(self, pid: int) -> SimulatedUnit | None:
        """Return the unit that a process belongs to: the one with the longest cgroup above it."""
        process = self.machine.processes.get(pid)
        if process is None:
            return None
        above = [unit for unit in self.units.values() if f"{process.cgroup}/".startswith(f"{unit.control_group}/")]
        return max(above, key=lambda unit: len(unit.control_group), default=None)

    async def start(self, unit: SimulatedUnit) -> str:
        """Start a unit; returns the job's result."""
        if unit.active_state == "active":
            return "done"
        self._enter(unit, "activating", "start")
        await self.machine.waits.takes(START_SECONDS)
        if unit.needs_module and unit.needs_module not in self.machine.modules.loaded:
            self._enter(unit, "failed", "failed")
            return "failed"
        self.machine.control_groups.add(unit.control_group)
        processes = [self.run(program, unit.control_group + program.below) for program in unit.programs]
        unit.main = processes[0] if processes else None
        self._enter(unit, "active", "running" if unit.kind != "Slice" else "active")
        if unit.after_start is not None:
            await unit.after_start()
        return "done"

    async def stop(self, unit: SimulatedUnit) -> str:
        """Stop a unit: SIGTERM, SIGKILL after its timeout; `done` says no more than that its cgroup is empty."""
        if unit.active_state in {"inactive", "failed"}:
            return "done"
        if unit.frozen:
            await self.freeze(unit, frozen=False)
        self._enter(unit, "deactivating", "stop-sigterm")
        ended = await self._end_all(unit, signal.SIGTERM) or await self._end_all(unit, signal.SIGKILL)
        unit.main = None
        if not ended:
            self._enter(unit, "failed", "failed")
            return "timeout"
        self._enter(unit, "inactive", "dead")
        if unit.kind == "Service":
            self.machine.control_groups.remove(unit.control_group)
        return "done"

    async def freeze(self, unit: SimulatedUnit, *, frozen: bool) -> None:
        """Freeze or thaw a unit with everything in it."""
        await self.machine.control_groups.freeze(unit.control_group, frozen)
        unit.frozen = frozen
        self._tell(unit)

    def confine(self, unit: SimulatedUnit, cpus: frozenset[int]) -> None:
        """Set AllowedCPUs; an empty set takes the limit away, but not what was in effect."""
        unit.allowed_cpus = cpus
        unit.cpuset = cpus or unit.cpuset
        self._tell(unit)

    def effective_cpus(self, unit: SimulatedUnit) -> frozenset[int]:
        """Return the CPUs that a unit can use: those of its set that every group above it leaves, or all of these."""
        cpus = self.machine.processors.online
        for other in self.units.values():
            inside = f"{unit.control_group}/".startswith(other.control_group.rstrip("/") + "/")
            if inside and other.cpuset & cpus:
                cpus &= other.cpuset
        return cpus

    def run(
        self, program: Program, cgroup: str, *, parent: SimulatedProcess | None = None, opens: tuple[str, ...] = ()
    ) -> SimulatedProcess:
        """Start a program in a cgroup."""
        self.machine.control_groups.add(cgroup)
        return self.machine.processes.spawn(
            program.name,
            uid=program.uid,
            cgroup=cgroup,
            parent=parent,
            opens=(*program.opens, *opens),
            follows=program.follows,
            stubborn=program.stubborn,
            memory=program.memory,
        )

    def process_ended(self, process: SimulatedProcess) -> None:
        """Note that a service's main process ended without a stop job."""
        for unit in self.units.values():
            if unit.main is process and unit.active_state == "active":
                unit.main = None
                self._enter(unit, "activating" if unit.restart else "inactive", "auto-restart" if unit.restart else "dead")
                if unit.restart:
                    delay = RESTART_SECONDS * self.machine.waits.pace
                    asyncio.get_running_loop().call_later(delay, self._restart, unit)

    def _restart(self, unit: SimulatedUnit) -> None:
        if unit.sub_state == "auto-restart":
            self.machine.background(self.start(unit))

    async def _end_all(self, unit: SimulatedUnit, number: int) -> bool:
        processes = self.machine.processes
        for process in processes.in_cgroup(unit.control_group):
            processes.signal(process.value, number)
        try:
            async with asyncio.timeout(unit.stop_timeout):
                await self.machine.waits.until(lambda: not processes.in_cgroup(unit.control_group), "", state="S")
        except TimeoutError:
            return False
        return True

    def _enter(self, unit: SimulatedUnit, active_state: str, sub_state: str) -> None:
        unit.active_state, unit.sub_state = active_state, sub_state
        self._tell(unit)

    def _tell(self, unit: SimulatedUnit) -> None:
        for listener in self.listeners:
            listener(unit)
