"""Logins and their sessions: who drives the screen, and what is left when the display manager stops (kernel.md 11)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from gpuhandoff.simulation.process import SimulatedProcess
from gpuhandoff.simulation.tree import Node
from gpuhandoff.simulation.units import START_SECONDS, Program, SimulatedUnit

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine


class Compositor(Enum):
    """What ends a session's compositor."""

    IN_SESSION = "in-session"
    """It is a child of the display manager's helper and ends with it (X11, old Plasma)."""
    USER_SERVICE = "user-service"
    """It runs in user@UID.service and ends when the session is terminated (GNOME)."""
    SURVIVES = "survives"
    """It ends only with user@UID.service (Plasma, uwsm; kernel.md fact 12)."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login that the display manager makes when it starts: the greeter, or a user who is logged in automatically."""

    user: str
    uid: int
    compositor: str
    gpus: tuple[str, ...]
    """Addresses of the GPUs that the compositor opens."""
    kind: str = "user"
    type: str = "wayland"
    ends: Compositor = Compositor.IN_SESSION
    programs: tuple[Program, ...] = ()
    """Clients of the compositor."""


@dataclass(eq=False, slots=True)
class SimulatedSession:
    """A session."""

    id: str
    login: Login
    scope: SimulatedUnit
    leader: SimulatedProcess
    state: str = "active"
    compositor: SimulatedProcess | None = None
    kept: list[tuple[SimulatedProcess, Node]] = field(default_factory=list)
    """DRM nodes that logind, and PID 1 for it, hold on the compositor's behalf."""


@dataclass(slots=True)
class Sessions:
    """The sessions of seat0, in the order in which they began."""

    machine: SimulatedMachine
    logins: tuple[Login, ...] = ()
    sound: str = "/dev/snd/controlC"
    """Which sound nodes WirePlumber opens and, when they go, closes."""
    user_stop_delay: float = 10.0
    """UserStopDelaySec: how long user@UID.service outlives the user's last session."""
    sessions: dict[str, SimulatedSession] = field(default_factory=dict)
    on_new: list[Callable[[SimulatedSession], None]] = field(default_factory=list)
    on_removed: list[Callable[[SimulatedSession], None]] = field(default_factory=list)
    _count: int = 0
    _arriving: list[int] = field(default_factory=list)
    """Users whose sessions begin."""

    async def start_display(self) -> None:
        """Make the logins that the display manager makes when it starts."""
        manager = self.machine.units.find("display-manager.service")
        if manager is None or manager.main is None:
            return
        for login in self.logins:
            nodes = self.machine.display_nodes(login.gpus)
            if nodes:
                await self.open(login, manager.main, nodes)

    async def open(self, login: Login, manager: SimulatedProcess, nodes: tuple[str, ...]) -> SimulatedSession:
        """Begin a session whose compositor opens these nodes."""
        machine = self.machine
        self._count += 1
        name = f"c{self._count}" if login.kind == "greeter" else str(self._count)
        slice_path = f"/user.slice/user-{login.uid}.slice"
        if f"user-{login.uid}.slice" not in machine.units.units:
            machine.units.add(SimulatedUnit(f"user-{login.uid}.slice", slice_path), active=True)
        self._arriving.append(login.uid)
        await self._start_user(login.uid)
        self._arriving.remove(login.uid)
        scope = machine.units.add(SimulatedUnit(f"session-{name}.scope", f"{slice_path}/session-{name}.scope"), active=True)
        leader = machine.units.run(Program(f"{manager.name}-helper"), scope.control_group, parent=manager)
        session = SimulatedSession(name, login, scope, leader)
        for other in self.sessions.values():
            if other.state == "active":
                other.state = "online"
        self.sessions[name] = session
        self._start_compositor(session, nodes)
        for callback in self.on_new:
            callback(session)
        return session

    async def terminate(self, session: SimulatedSession) -> None:
        """End a session: everything in its scope, and a compositor that listens to it."""
        if session.login.ends is not Compositor.SURVIVES and session.compositor is not None:
            self.machine.processes.signal(session.compositor.value, 15)
        self.machine.background(self._stop_scope(session))

    def process_ended(self, process: SimulatedProcess) -> None:
        """Close a session whose leader is gone; remove it once its scope is empty."""
        for session in tuple(self.sessions.values()):
            if session.compositor is process:
                self._release_devices(session)
            if session.leader is process:
                session.state = "closing"
            if session.state == "closing" and not self.machine.processes.in_cgroup(session.scope.control_group):
                self._remove(session)

    def _start_compositor(self, session: SimulatedSession, nodes: tuple[str, ...]) -> None:
        machine, login = self.machine, session.login
        in_session = login.ends is Compositor.IN_SESSION
        place = session.scope.control_group
        if not in_session:
            place = f"{self._user_service(login.uid).control_group}/session.slice/plasma-{login.compositor}.service"
        compositor = machine.units.run(
            Program(login.compositor, login.uid), place, parent=session.leader if in_session else None, opens=nodes
        )
        session.compositor = compositor
        for program in login.programs:
            machine.units.run(program, f"{place}", parent=compositor)
        keepers = (*machine.processes.named("systemd"), *machine.processes.named("systemd-logind"))
        for keeper in keepers:
            for path in nodes:
                node = machine.tree.node(path) if path.startswith("/dev/dri/card") else None
                if node is not None:
                    machine.processes.hold(keeper, node)
                    session.kept.append((keeper, node))

    def _release_devices(self, session: SimulatedSession) -> None:
        """logind, and PID 1 which keeps its descriptors, let go of the session's DRM nodes (kernel.md 11)."""
        session.compositor = None
        for keeper, node in session.kept:
            self.machine.processes.release(keeper, node)
        session.kept.clear()

    async def _stop_scope(self, session: SimulatedSession) -> None:
        await self.machine.units.stop(session.scope)

    def _remove(self, session: SimulatedSession) -> None:
        if self.sessions.pop(session.id, None) is None:
            return
        if session.login.ends is Compositor.USER_SERVICE and session.compositor is not None:
            self.machine.processes.signal(session.compositor.value, 15)
        self._release_devices(session)
        self.machine.units.drop(session.scope)
        for callback in self.on_removed:
            callback(session)
        if not self._is_there(session.login.uid):
            delay = self.user_stop_delay * self.machine.waits.pace
            asyncio.get_running_loop().call_later(delay, lambda: self.machine.background(self._stop_user(session.login.uid)))

    def _is_there(self, uid: int) -> bool:
        return uid in self._arriving or any(session.login.uid == uid for session in self.sessions.values())

    async def _stop_user(self, uid: int) -> None:
        """End a user's manager, unless the user has come back meanwhile."""
        if not self._is_there(uid):
            await self.machine.units.stop(self._user_service(uid))

    async def _start_user(self, uid: int) -> None:
        """Start a user's manager; one that is just being stopped first ends, as systemd's jobs wait for one another."""
        service = self._user_service(uid)
        while service.active_state == "deactivating":
            await self.machine.waits.takes(START_SECONDS)
        await self.machine.units.start(service)

    def _user_service(self, uid: int) -> SimulatedUnit:
        name = f"user@{uid}.service"
        unit = self.machine.units.find(name)
        if unit is None:
            programs = (
                Program("systemd-user", uid, below="/init.scope"),
                Program("pipewire", uid, below="/session.slice/pipewire.service"),
                *((self._wireplumber(uid),) if uid >= 1000 else ()),  # noqa: PLR2004
            )
            unit = self.machine.units.add(
                SimulatedUnit(name, f"/user.slice/user-{uid}.slice/{name}", programs, stop_timeout=120.0)
            )
        return unit

    def _wireplumber(self, uid: int) -> Program:
        return Program("wireplumber", uid, follows=self.sound, below="/session.slice/wireplumber.service")
