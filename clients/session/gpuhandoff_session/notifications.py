"""The desktop's notifications: one of ours at a time, the latest in place of the one before."""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import Callable
from typing import Any

from gpuhandoff_session.bus import TIMEOUT, CallError, Connection, Service, Typed
from gpuhandoff_session.sentences import Notice

SERVER = Service("org.freedesktop.Notifications", "/org/freedesktop/Notifications", "org.freedesktop.Notifications")
NAME = "GPU handoff"
ICON = "video-display"
PATIENCE = 2.0
"""Seconds for the server to say what it can show."""
BUSY = 30.0
"""Seconds for one that is busy to show something: a plasmashell that has just been started does nothing else for a while."""
NORMAL, CRITICAL = 1, 2
FOR_EVER, AS_USUAL = 0, -1

ALL = frozenset({"actions", "body-markup"})
"""What is asked for, of a server that has not said yet what it can show; text is harmless as markup, not the reverse."""

log = logging.getLogger(__name__)


class Notifications:
    """Shows notices. A server that is slow, or none at all, holds nobody up."""

    def __init__(self, session: Connection, pressed: Callable[[str], None]) -> None:
        self._session = session
        self._pressed = pressed
        self._capabilities = ALL
        self._id = 0
        self._wanted: Notice | None = None
        self._worker: asyncio.Task[None] | None = None

    async def start(self, came: Callable[[], None]) -> None:
        """Listen, and tell when there is a server. Raises CallError when the bus is gone."""
        await self._session.watch(SERVER, self._heard, lambda owner: came() if owner else None)

    async def present(self) -> bool:
        """Tell whether there is a server already. The bus is not to start one: early in a login it may be a wrong one."""
        return bool(await self._session.owner(SERVER.name))

    async def usable(self) -> bool:
        """Tell whether somebody would see a notice; one that only is slow may show it in time."""
        try:
            answer = await self._session.call(SERVER, "GetCapabilities", timeout=PATIENCE)
        except CallError as error:
            log.warning("the notification server does not say what it can show: %s", error.message)
            return error.name == TIMEOUT
        match answer:
            case [[*found]]:
                self._capabilities = frozenset(str(one) for one in found)
                return True
        log.warning("what the notification server says of itself makes no sense")
        return True

    def show(self, notice: Notice) -> None:
        """Show a notice soon, in place of the one before."""
        self._wanted = notice
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    def add(self, notice: Notice) -> None:
        """Show a notice beside the one before, which stays."""
        self._id = 0
        self.show(notice)

    async def settled(self) -> None:
        """Wait until what is wanted is shown."""
        if self._worker is not None:
            await self._worker

    async def withdraw(self) -> None:
        """Take the notice away."""
        self._wanted = None
        await self.settled()
        if self._id:
            await self._try("CloseNotification", "u", self._id)
            self._id = 0

    async def _work(self) -> None:
        try:
            while self._wanted is not None:
                notice, self._wanted = self._wanted, None
                match await self._try("Notify", "susssasa{sv}i", *self._arguments(notice), timeout=BUSY):
                    case [int(number)]:
                        self._id = number
        finally:
            self._worker = None

    def _arguments(self, notice: Notice) -> tuple[Any, ...]:
        body = html.escape(notice.body, quote=False) if "body-markup" in self._capabilities else notice.body
        buttons = [text for button in notice.buttons for text in button] if "actions" in self._capabilities else []
        hints = {"urgency": Typed("y", CRITICAL if notice.urgent else NORMAL)}
        lasts = FOR_EVER if notice.urgent else AS_USUAL
        return (NAME, self._id, ICON, notice.title, body, buttons, hints, lasts)

    async def _try(self, member: str, signature: str, *arguments: Any, timeout: float = PATIENCE) -> list[Any]:
        try:
            return await self._session.call(SERVER, member, signature, *arguments, timeout=timeout)
        except CallError as error:
            log.warning("the notification server does not do %s: %s", member, error.message)
            return []

    def _heard(self, member: str, body: list[Any]) -> None:
        if not self._id or not body or body[0] != self._id:
            return
        if member == "ActionInvoked":
            self._pressed(str(body[1]))
        elif member == "NotificationClosed":  # seen, and put aside: that is no answer
            self._id = 0
