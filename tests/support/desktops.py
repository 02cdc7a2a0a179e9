"""Desktops that answer as real ones were seen to, on a bus in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gpuhandoff.messages import Call, RemoteError, Reply, Signal, Variant
from gpuhandoff.simulation.loopback import LoopbackBroker, LoopbackBus
from gpuhandoff_session.bus import GONE
from tests.support.wire import Wire

KWIN_FORCES_AFTER = 120.0
"""Seconds after which KWin goes on with a logout in spite of programs that still ask."""
PLASMA_CLOSES_IN = 6.0


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
