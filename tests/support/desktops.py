"""Desktops that answer as real ones were seen to, and a notification server, on a bus in this process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from gpuhandoff.messages import NO_REPLY, Bus, Call, Match, RemoteError, Reply, Signal, Variant
from gpuhandoff.simulation.loopback import LoopbackBroker, LoopbackBus
from gpuhandoff_session.bus import GONE, TIMEOUT, CallError, Connection, Service, Typed

NOTIFICATIONS = "org.freedesktop.Notifications"
KWIN_FORCES_AFTER = 120.0
"""Seconds after which KWin goes on with a logout in spite of programs that still ask."""
PLASMA_CLOSES_IN = 6.0
HELPER_PID = 4242
APPEARS_IN = 0.05
"""Seconds from when a notice is asked for until somebody can press its buttons."""
_MEMBERS = {
    "org.gpuhandoff.Manager": ("PrepareForHandoff", "JobRemoved", "StateChanged"),
    NOTIFICATIONS: ("ActionInvoked", "NotificationClosed"),
    "org.gnome.SessionManager": ("InhibitorAdded", "InhibitorRemoved"),
    "org.freedesktop.login1.Manager": ("SessionRemoved",),
}
"""By interface, the signals that a Wire listens for: a bus in this process has no rules without a member."""


class Wire:
    """What gpuhandoff_session.bus.Connection is on a real bus."""

    def __init__(self, broker: LoopbackBroker, uid: int) -> None:
        self.broker = broker
        self.bus = broker.connect(uid=uid)
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.activatable: dict[str, Callable[[], Awaitable[None]]] = {}

    @property
    def connection(self) -> Connection:
        """This, by the type that the program asks for."""
        return cast("Connection", self)

    async def call(
        self, service: Service, member: str, signature: str = "", *body: Any, timeout: float | None = 5.0
    ) -> list[Any]:
        if member == "GetConnectionUnixProcessID":
            return [HELPER_PID]
        start = self.activatable.get(service.name)
        if start is not None and not self.broker.owner(service.name):
            await start()
        where = (service.name, service.path, service.interface, member)
        given = tuple(_to_ours(one) for one in body)
        try:
            reply = await self.bus.call(*where, signature, given, timeout=3600 if timeout is None else timeout)
        except RemoteError as error:
            raise CallError(TIMEOUT if error.name == NO_REPLY else error.name, error.message) from error
        return [_plain(one) for one in reply]

    async def properties(self, service: Service) -> dict[str, Any]:
        where = Service(service.name, service.path, "org.freedesktop.DBus.Properties")
        (found,) = await self.call(where, "GetAll", "s", service.interface)
        return dict(found)

    async def owner(self, name: str) -> str:
        return self.broker.owner(name)

    async def watch(
        self, service: Service, heard: Callable[[str, list[Any]], None], came_or_went: Callable[[str], None]
    ) -> None:
        for member in _MEMBERS.get(service.interface, ()):
            match = Match(service.interface, member, sender=service.name)
            await self.bus.subscribe(match, lambda signal: heard(signal.member, [_plain(one) for one in signal.body]))
        changed = Match("org.freedesktop.DBus", "NameOwnerChanged", arg0=service.name)
        await self.bus.subscribe(changed, lambda signal: came_or_went(str(signal.body[2])))
        came_or_went(self.broker.owner(service.name))

    def cut(self) -> None:
        """Leave, as in a crash."""
        self.bus.drop()
        if not self.lost.done():
            self.lost.set_result(None)


@dataclass(frozen=True, slots=True)
class Shown:
    """A notification as it was asked for."""

    id: int
    replaces: int
    title: str
    body: str
    buttons: tuple[str, ...]
    urgency: int


class FakeNotifications:
    """Notes what is shown; buttons are pressed by tests."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.shown: list[Shown] = []
        self.closed: list[int] = []
        self.capabilities = ["actions", "body", "body-markup"]
        self.hangs = False
        self._changed = asyncio.Event()
        self._numbers = itertools.count(1)

    @classmethod
    async def start(cls, bus: Bus) -> FakeNotifications:
        server = cls(bus)
        bus.serve(server._answer)
        await bus.request_name(NOTIFICATIONS)
        return server

    @property
    def titles(self) -> list[str]:
        return [one.title for one in self.shown]

    async def until(self, words: str) -> Shown:
        """Return the first notice whose title has these words, when it is there."""
        while not (found := [one for one in self.shown if words in one.title]):
            self._changed.clear()
            await self._changed.wait()
        return found[0]

    def press(self, key: str, notice: int | None = None) -> None:
        self._emit("ActionInvoked", "us", self.shown[-1].id if notice is None else notice, key)

    def put_aside(self) -> None:
        self._emit("NotificationClosed", "uu", self.shown[-1].id, 2)

    def _emit(self, member: str, signature: str, *body: Any) -> None:
        self.bus.emit(Signal("/org/freedesktop/Notifications", NOTIFICATIONS, member, signature, body))

    async def _answer(self, call: Call) -> Reply:
        if self.hangs:
            await asyncio.Event().wait()
        match call.member:
            case "GetCapabilities":
                return Reply("as", (self.capabilities,))
            case "CloseNotification":
                self.closed.append(call.body[0])
                return Reply()
        _, replaces, _, title, body, buttons, hints, _ = call.body
        number = replaces or next(self._numbers)
        shown = Shown(number, replaces, title, body, tuple(buttons), hints["urgency"].value)
        asyncio.get_running_loop().call_later(APPEARS_IN, self._appear, shown)  # the caller has its answer by then
        return Reply("u", (number,))

    def _appear(self, shown: Shown) -> None:
        self.shown.append(shown)
        self._changed.set()


class FakePlasma:
    """What plasma-shutdown, ksmserver, KWin and the user's systemd did (KWin 6.3, plasma-workspace 6.3 to 6.7).

    `logout` answers at once and asks nobody; the list of programs is written, windows are closed. Programs with unsaved
    changes ask, and nobody's answer is waited for longer than two minutes. Then it stops the target and ends.
    """

    def __init__(self, broker: LoopbackBroker, ended: Callable[[], None]) -> None:
        self._broker = broker
        self._ended = ended
        self.programs = ["firefox", "kate"]
        self.remembered: list[str] = []
        self.logouts = 0
        self.resets = 0
        self.asks = False
        """Whether a program has unsaved changes."""
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether to close, or to stay."""
        self.hangs = False
        self.slow = 0.0
        """Seconds that the bus takes to start plasma-shutdown."""
        self.target = "active"
        self._helper: LoopbackBus | None = None
        self._logout: asyncio.Task[None] | None = None

    async def start(self, wire: Wire) -> FakePlasma:
        for name in ("org.kde.KWin", "org.kde.ksmserver", "org.freedesktop.systemd1"):
            bus = self._broker.connect(uid=1000)
            bus.serve(self._answer)
            await bus.request_name(name)
        wire.activatable["org.kde.Shutdown"] = self._start_helper
        return self

    def kill_helper(self) -> None:
        """plasma-shutdown gets SIGTERM: nobody is left to go on with the logout."""
        assert self._logout is not None
        self._logout.cancel()
        self._leave()

    async def _start_helper(self) -> None:
        await asyncio.sleep(self.slow)
        self._helper = self._broker.connect(uid=1000)
        self._helper.serve(self._answer)
        await self._helper.request_name("org.kde.Shutdown")

    def _leave(self) -> None:
        if self._helper is not None:
            self._helper.drop()
            self._helper = None

    async def _answer(self, call: Call) -> Reply:
        if self.hangs:
            await asyncio.Event().wait()
        match call.member:
            case "logout":
                self.logouts += 1
                if self._helper is not None and (self._logout is None or self._logout.done()):
                    self._logout = asyncio.create_task(self._log_out())
                return Reply()
            case "resetLogout":
                self.resets += 1
                return Reply()
            case "GetUnit":
                return Reply("o", ("/org/freedesktop/systemd1/unit/graphical_2dsession_2etarget",))
            case "GetAll":
                return Reply("a{sv}", ({"ActiveState": Variant("s", self.target), "Job": Variant("(uo)", (0, "/"))},))
        raise RemoteError("org.freedesktop.DBus.Error.UnknownMethod", call.member)

    async def _log_out(self) -> None:
        self.remembered = list(self.programs)
        if await self._close_windows():
            self.target = "deactivating"
            self._ended()
        else:
            self.resets += 1
        self._leave()

    async def _close_windows(self) -> bool:
        await asyncio.sleep(PLASMA_CLOSES_IN)
        self.programs = self.programs[:1] if self.asks else []
        if not self.asks:
            return True
        try:
            return await asyncio.wait_for(asyncio.shield(self.answer), KWIN_FORCES_AFTER)
        except TimeoutError:
            self.programs = []
            return True


class FakeGnome:
    """gnome-session: inhibitors are asked for beforehand; Logout(1) asks nobody and ends the session."""

    NAME = "org.gnome.SessionManager"

    def __init__(self, broker: LoopbackBroker, ended: Callable[[], None]) -> None:
        self._bus = broker.connect(uid=1000)
        self._ended = ended
        self.modes: list[int] = []
        self.slow = 0.0
        """Seconds that an answer takes."""
        self.inhibitors: dict[str, tuple[str, str, int]] = {}
        """By path: program, reason, flags (1: logging out, 4: suspending)."""

    async def start(self, _: Wire) -> FakeGnome:
        self._bus.serve(self._answer)
        await self._bus.request_name(self.NAME)
        return self

    def release(self, path: str) -> None:
        del self.inhibitors[path]
        self._bus.emit(Signal("/org/gnome/SessionManager", self.NAME, "InhibitorRemoved", "o", (path,)))

    async def _answer(self, call: Call) -> Reply:
        await asyncio.sleep(self.slow)
        match call.member:
            case "IsInhibited":
                return Reply("b", (any(flags & call.body[0] for _, _, flags in self.inhibitors.values()),))
            case "GetInhibitors":
                return Reply("ao", (list(self.inhibitors),))
            case "GetAppId":
                return Reply("s", (self.inhibitors[call.path][0],))
            case "GetReason":
                return Reply("s", (self.inhibitors[call.path][1],))
            case "GetFlags":
                return Reply("u", (self.inhibitors[call.path][2],))
            case "Logout":
                self.modes.append(call.body[0])
                if not any(flags & 1 for _, _, flags in self.inhibitors.values()):
                    asyncio.get_running_loop().call_later(1.0, self._ended)
                return Reply()
        raise RemoteError(GONE, call.member)


def _to_ours(value: Any) -> Any:
    match value:
        case Typed(signature, inner):
            return Variant(signature, inner)
        case dict():
            return {key: _to_ours(inner) for key, inner in value.items()}
    return value


def _plain(value: Any) -> Any:
    match value:
        case Variant(_, inner):
            return _plain(inner)
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return value
