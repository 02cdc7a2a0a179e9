"""Inhibitors: clients that hold a handoff off, for good (block) or for a bounded time (delay)."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

from gpuhandoff.errors import InhibitedError, InvalidArgsError, LimitsExceededError, NotFoundError
from gpuhandoff.messages import Unsubscribe

PER_CALLER = 16
PER_USER = 32
IN_ALL = 256
TEXT = 200
"""Characters of `who` and `why`."""


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """One client's objection."""

    cookie: int
    sender: str
    uid: int
    who: str
    why: str
    mode: str
    unwatch: Unsubscribe


class Inhibitors:
    """All that are held now."""

    def __init__(self) -> None:
        self._cookies = itertools.count(1)
        self._held: dict[int, Inhibitor] = {}
        self._released = asyncio.Event()

    def check(self, sender: str, uid: int, who: str, why: str, mode: str) -> None:
        """Raise when such an inhibitor cannot be taken."""
        if mode not in {"delay", "block"}:
            raise InvalidArgsError("mode: delay or block is expected.")
        for name, text in (("who", who), ("why", why)):
            if not text or len(text) > TEXT or not text.isprintable():
                raise InvalidArgsError(f"{name}: 1 to {TEXT} printable characters are expected.")
        mine = sum(inhibitor.sender == sender for inhibitor in self._held.values())
        users = sum(inhibitor.uid == uid for inhibitor in self._held.values())
        if mine >= PER_CALLER or users >= PER_USER or len(self._held) >= IN_ALL:
            limits = f"{PER_CALLER} inhibitors, one user {PER_USER}, all of them {IN_ALL}"
            raise LimitsExceededError(f"One caller may hold {limits}.")

    def add(self, sender: str, uid: int, who: str, why: str, mode: str, unwatch: Unsubscribe) -> int:
        """Take an inhibitor and return its cookie."""
        cookie = next(self._cookies)
        self._held[cookie] = Inhibitor(cookie, sender, uid, who, why, mode, unwatch)
        return cookie

    def remove(self, sender: str, cookie: int) -> None:
        """Give one back; only its own caller can. Raises NotFoundError."""
        inhibitor = self._held.get(cookie)
        if inhibitor is None or inhibitor.sender != sender:
            raise NotFoundError(f"You hold no inhibitor {cookie}.")
        self._drop(inhibitor)

    def forget(self, sender: str) -> None:
        """Drop all that a caller held who has left the bus."""
        for inhibitor in [one for one in self._held.values() if one.sender == sender]:
            self._drop(inhibitor)

    @property
    def blocking(self) -> list[Inhibitor]:
        """Those that refuse a handoff."""
        return [inhibitor for inhibitor in self._held.values() if inhibitor.mode == "block"]

    def refuse(self) -> None:
        """Raise InhibitedError naming who blocks."""
        if self.blocking:
            one = self.blocking[0]
            raise InhibitedError(f"{one.who} does not want the GPU handed off now: {one.why}.")

    async def delayed(self, seconds: float) -> None:
        """Wait until no delay inhibitor is held, at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while any(inhibitor.mode == "delay" for inhibitor in self._held.values()):
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError:
            return

    def _drop(self, inhibitor: Inhibitor) -> None:
        del self._held[inhibitor.cookie]
        inhibitor.unwatch()
        self._released.set()
