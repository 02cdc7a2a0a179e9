"""A notification server whose buttons are pressed by tests."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

from gpuhandoff.messages import Bus, Call, Reply, Signal

NOTIFICATIONS = "org.freedesktop.Notifications"
APPEARS_IN = 0.05
"""Seconds from when a notice is asked for until somebody can press its buttons."""


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
        """Whether it answers nothing, until it is told to go on."""
        self.answers: Reply | None = None
        """What it answers to everything, in place of what makes sense."""
        self._going_on = asyncio.Event()
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

    def go_on(self) -> None:
        """Answer, also what was asked while it hung."""
        self.hangs = False
        self._going_on.set()

    def press(self, key: str, notice: int | None = None) -> None:
        self._emit("ActionInvoked", "us", self.shown[-1].id if notice is None else notice, key)

    def put_aside(self) -> None:
        self._emit("NotificationClosed", "uu", self.shown[-1].id, 2)

    def _emit(self, member: str, signature: str, *body: Any) -> None:
        self.bus.emit(Signal("/org/freedesktop/Notifications", NOTIFICATIONS, member, signature, body))

    async def _answer(self, call: Call) -> Reply:
        if self.hangs:
            await self._going_on.wait()
        if self.answers is not None:
            return self.answers
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
