"""A stand-in for logind on the bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.messages import Call, RemoteError, Reply, Variant
from gpuhandoff.simulation.sessions import SimulatedSession
from gpuhandoff.simulation.standin import StandIn, escape

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

MANAGER = "org.freedesktop.login1.Manager"
SESSION = "org.freedesktop.login1.Session"
ROOT_PATH = "/org/freedesktop/login1"
NO_SUCH_SESSION = "org.freedesktop.login1.NoSuchSession"


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """A lock; it lasts until the last copy of its descriptor is closed."""

    what: str
    who: str
    why: str
    mode: str
    sender: str


class SimulatedLogind(StandIn):
    """login1: sessions, inhibitors."""

    name = "org.freedesktop.login1"

    def __init__(self, machine: SimulatedMachine) -> None:
        super().__init__(machine)
        self.inhibitors: dict[int, Inhibitor] = {}
        """By our end of the pipe."""
        machine.sessions.on_new.append(self._session_new)
        machine.sessions.on_removed.append(self._session_removed)
        self.methods |= {
            (MANAGER, "ListSessions"): ("", self._list_sessions),
            (MANAGER, "GetSession"): ("s", self._get_session),
            (MANAGER, "TerminateSession"): ("s", self._terminate_session),
            (MANAGER, "Inhibit"): ("ssss", self._inhibit),
            (MANAGER, "ListInhibitors"): ("", self._list_inhibitors),
            (SESSION, "Terminate"): ("", self._terminate),
        }

    def prepare(self, member: str, *, going: bool) -> None:
        """Say that the machine is about to sleep or to shut down (PrepareForSleep, PrepareForShutdown), or no longer is."""
        self.emit(ROOT_PATH, MANAGER, member, "b", (going,))

    def release(self, sender: str = "") -> None:
        """Drop the locks of a participant that has died, or all: its process no longer keeps the descriptors open."""
        for descriptor, inhibitor in tuple(self.inhibitors.items()):
            if sender in {"", inhibitor.sender}:
                self._released(descriptor)

    def properties(self, path: str, interface: str) -> Mapping[str, Variant] | None:
        """Return the manager's or a session's properties."""
        if path == ROOT_PATH:
            blocked = ":".join(sorted({what for one in self.inhibitors.values() for what in one.what.split(":")}))
            return {"BlockInhibited": Variant("s", blocked)} if interface == MANAGER else {}
        session = next((one for one in self.machine.sessions.sessions.values() if session_path(one.id) == path), None)
        if session is None:
            return None
        if interface != SESSION:
            return {}
        login = session.login
        return {
            "Id": Variant("s", session.id),
            "User": Variant("(uo)", (login.uid, f"{ROOT_PATH}/user/_{login.uid}")),
            "Name": Variant("s", login.user),
            "Seat": Variant("(so)", ("seat0", f"{ROOT_PATH}/seat/seat0")),
            "VTNr": Variant("u", 2),
            "Service": Variant("s", "sddm" if login.kind == "user" else "sddm-greeter"),
            "Scope": Variant("s", session.scope.name),
            "Leader": Variant("u", session.leader.pid),
            "Type": Variant("s", login.type),
            "Class": Variant("s", login.kind),
            "Active": Variant("b", session.state == "active"),
            "State": Variant("s", session.state),
        }

    async def _list_sessions(self, _call: Call) -> Reply:
        rows = [
            (session.id, session.login.uid, session.login.user, "seat0", session_path(session.id))
            for session in self.machine.sessions.sessions.values()
        ]
        return Reply("a(susso)", (rows,))

    async def _get_session(self, call: Call) -> Reply:
        return Reply("o", (session_path(self._session(call.body[0]).id),))

    async def _terminate_session(self, call: Call) -> Reply:
        await self.machine.sessions.terminate(self._session(call.body[0]))
        return Reply()

    async def _terminate(self, call: Call) -> Reply:
        for session in self.machine.sessions.sessions.values():
            if session_path(session.id) == call.path:
                await self.machine.sessions.terminate(session)
        return Reply()

    async def _inhibit(self, call: Call) -> Reply:
        what, who, why, mode = call.body
        ours, theirs = os.pipe()
        self.inhibitors[ours] = Inhibitor(what, who, why, mode, call.sender)
        asyncio.get_running_loop().add_reader(ours, self._released, ours)
        return Reply("h", (theirs,))

    async def _list_inhibitors(self, _call: Call) -> Reply:
        rows = [(one.what, one.who, one.why, one.mode, 0, 0) for one in self.inhibitors.values()]
        return Reply("a(ssssuu)", (rows,))

    def _released(self, descriptor: int) -> None:
        if self.inhibitors.pop(descriptor, None) is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _session(self, name: str) -> SimulatedSession:
        session = self.machine.sessions.sessions.get(name)
        if session is None:
            raise RemoteError(NO_SUCH_SESSION, f"No session '{name}' known")
        return session

    def _session_new(self, session: SimulatedSession) -> None:
        self.emit(ROOT_PATH, MANAGER, "SessionNew", "so", (session.id, session_path(session.id)))

    def _session_removed(self, session: SimulatedSession) -> None:
        self.emit(ROOT_PATH, MANAGER, "SessionRemoved", "so", (session.id, session_path(session.id)))


def session_path(name: str) -> str:
    """Return a session's object path."""
    return f"{ROOT_PATH}/session/{escape(name)}"
