"""How each desktop is asked to end, in its own way: what it does at a logout is what makes it remember its programs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from gpuhandoff_session.bus import DBUS, DBUS_PATH, CallError, Connection, Service
from gpuhandoff_session.events import Event, Obstructed, Stayed, Unable

SYSTEMD = Service("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
UNIT = "org.freedesktop.systemd1.Unit"
TARGET = "graphical-session.target"
ACTIVATION = 20.0
"""Seconds for a call that may have to start a program first."""

Report = Callable[[Event], None]

log = logging.getLogger(__name__)


class Desktop(Protocol):
    """What takes a desktop's leave."""

    async def leave(self) -> None:
        """Ask it to end; what comes of it is reported, and its end is ours."""

    async def stay(self) -> None:
        """Take back what `leave` has asked for, as far as that is possible."""


async def find_desktop(session: Connection, report: Report) -> Desktop:
    """Return the desktop of this session. Raises CallError when the bus is gone."""
    if await session.owner(Plasma.KWIN.name):
        return Plasma(session, report)
    if await session.owner(Gnome.MANAGER.name):
        return Gnome(session, report)
    return Other(report)


class Plasma:
    """Plasma writes down its programs and closes their windows in plasma-shutdown, which the bus starts.

    Programs ask about unsaved changes; after ten seconds KWin asks whether to stay, and after two minutes it goes on in
    spite of all that: it has to be stopped before. plasma-shutdown ends when it is done, or when it was told to stay.
    """

    SHUTDOWN = Service("org.kde.Shutdown", "/Shutdown", "org.kde.Shutdown")
    SERVER = Service("org.kde.ksmserver", "/KSMServer", "org.kde.KSMServerInterface")
    KWIN = Service("org.kde.KWin", "/Session", "org.kde.KWin.Session")

    def __init__(self, session: Connection, report: Report) -> None:
        self._session = session
        self._report = report
        self._leaving = False
        self._attempt = 0
        """Counts what was asked for, so that what comes late of an earlier attempt is nobody's."""
        self._asked = False
        """Whether plasma-shutdown was asked to log out and has not ended since."""
        self._ending = False
        """Whether it was told to end, and has not yet."""
        self._gone = asyncio.Event()
        self._listens = False
        self._helper = ""
        self._looking: asyncio.Task[None] | None = None

    async def leave(self) -> None:
        """Log out without a question whether to."""
        self._leaving = True
        self._attempt += 1
        attempt = self._attempt
        try:
            if not self._listens:
                self._listens = True
                await self._session.watch(self.SHUTDOWN, lambda *_: None, self._on_helper)
            if self._ending:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), ACTIVATION)
            if attempt != self._attempt:  # told to stay meanwhile
                return
            self._asked = True
            await self._session.call(self.SHUTDOWN, "logout", timeout=ACTIVATION)
        except CallError as error:
            if attempt != self._attempt:
                return
            self._leaving = self._asked = False
            log.warning("Plasma cannot be asked to end: %s", error.message)
            self._report(Unable())

    async def stay(self) -> None:
        """End plasma-shutdown before it goes on; one that the bus is still starting ends when it comes."""
        self._leaving = False
        self._attempt += 1
        if self._asked and self._helper:
            await self._end_helper()

    async def _end_helper(self) -> None:
        """Do what it does when it is told to stay."""
        self._asked, self._ending = False, True
        self._gone.clear()
        try:
            (pid,) = await self._session.call(
                Service(DBUS, DBUS_PATH, DBUS), "GetConnectionUnixProcessID", "s", self._helper
            )
            os.kill(pid, signal.SIGTERM)
            await self._session.call(self.SERVER, "resetLogout")
        except (CallError, OSError) as error:
            log.warning("Plasma may still log out: %s", error)

    def _on_helper(self, owner: str) -> None:
        before, self._helper = self._helper, owner
        if owner and self._asked and not self._leaving:
            self._looking = asyncio.create_task(self._end_helper())
        elif before and not owner:
            ours, self._ending, self._asked = self._ending, False, False
            self._gone.set()
            if self._leaving and not ours:
                self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Tell a desktop that stays from one that ends when plasma-shutdown has ended: it has stopped the target before."""
        try:
            if not await self._session.owner(self.KWIN.name):
                return
            (path,) = await self._session.call(SYSTEMD, "GetUnit", "s", TARGET)
            unit = await self._session.properties(Service(SYSTEMD.name, path, UNIT))
        except CallError as error:
            log.info("whether Plasma stays cannot be told: %s", error.message)
            return
        if self._leaving and unit["ActiveState"] == "active" and not unit["Job"][0]:
            self._leaving = False
            self._report(Stayed())


class Gnome:
    """GNOME's programs say beforehand that they do not want the session to end, and why; it is asked when none does."""

    MANAGER = Service("org.gnome.SessionManager", "/org/gnome/SessionManager", "org.gnome.SessionManager")
    INHIBITOR = "org.gnome.SessionManager.Inhibitor"
    LOGOUT = 1
    """The flag of inhibitors that are about logging out."""
    NO_CONFIRMATION = 1
    """The mode of Logout that asks nobody whether to, but heeds inhibitors."""

    def __init__(self, session: Connection, report: Report) -> None:
        self._session = session
        self._report = report
        self._leaving = False
        self._waiting = False
        self._listens = False
        self._looking: asyncio.Task[None] | None = None

    async def leave(self) -> None:
        """Log out, unless a program objects: then say which, and when none does any more."""
        self._leaving = True
        try:
            if not self._listens:
                self._listens = True
                await self._session.watch(self.MANAGER, self._heard, lambda _: None)
            asking = await self._asking()
            if not self._leaving:  # told to stay meanwhile
                return
            self._waiting = bool(asking)
            if asking:
                self._report(Obstructed(asking))
                return
            await self._session.call(self.MANAGER, "Logout", "u", self.NO_CONFIRMATION, timeout=ACTIVATION)
        except CallError as error:
            log.warning("GNOME cannot be asked to end: %s", error.message)
            self._report(Unable())

    async def stay(self) -> None:
        """Wait no longer. Nobody can take back a logout that was asked for."""
        self._leaving = self._waiting = False

    def _heard(self, member: str, _: list[Any]) -> None:
        if self._waiting and member in {"InhibitorAdded", "InhibitorRemoved"}:
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            asking = await self._asking()
        except CallError as error:
            log.warning("GNOME does not say who wants it to stay: %s", error.message)
            return
        if self._waiting:
            self._waiting = bool(asking)
            self._report(Obstructed(asking))

    async def _asking(self) -> tuple[str, ...]:
        """Return who does not want the session to end, and why."""
        (inhibited,) = await self._session.call(self.MANAGER, "IsInhibited", "u", self.LOGOUT)
        if not inhibited:
            return ()
        (paths,) = await self._session.call(self.MANAGER, "GetInhibitors")
        found = [asking for path in paths if (asking := await self._inhibitor(path))]
        return tuple(sorted(found)) or ("A program does not want the session to end",)

    async def _inhibitor(self, path: str) -> str:
        one = Service(self.MANAGER.name, path, self.INHIBITOR)
        try:
            (flags,) = await self._session.call(one, "GetFlags")
            if not flags & self.LOGOUT:
                return ""
            (program,), (why,) = await self._session.call(one, "GetAppId"), await self._session.call(one, "GetReason")
        except CallError:  # gone meanwhile
            return ""
        return _clean(f"{program.removesuffix('.desktop').rpartition('.')[2]}: {why}")


class Other:
    """A desktop that nobody has told us how to ask: it ends with the display manager, as without us."""

    def __init__(self, report: Report) -> None:
        self._report = report

    async def leave(self) -> None:
        """Say that it cannot be asked."""
        self._report(Unable())

    async def stay(self) -> None:
        """It was not asked."""


def _clean(text: str) -> str:
    return "".join(one for one in text if one.isprintable())[:120].strip().rstrip(".:")
