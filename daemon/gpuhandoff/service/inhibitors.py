"""Inhibitors: clients that hold a handoff off, for good (block) or for a bounded time (delay, session)."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from gpuhandoff.errors import InhibitedError, InvalidArgsError, LimitsExceededError, NotFoundError
from gpuhandoff.messages import Unsubscribe

PER_CALLER = 16
PER_USER = 32
IN_ALL = 256
TEXT = 200
"""Characters of `who` and `why`."""
MODES = ("delay", "session", "block")

log = logging.getLogger(__name__)


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
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is given back, or its caller has left."""


class Inhibitors:
    """All that are held now."""

    def __init__(self) -> None:
        self._cookies = itertools.count(1)
        self._held: dict[int, Inhibitor] = {}

    def check(self, sender: str, uid: int, who: str, why: str, mode: str) -> None:
        """Raise when such an inhibitor cannot be taken."""
        if mode not in MODES:
            raise InvalidArgsError("mode: delay, session or block is expected.")
        check_text("who", who)
        check_text("why", why)
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

    def delaying(self, users: Collection[int]) -> tuple[list[Inhibitor], list[Inhibitor]]:
        """Return what a handoff that ends the desktops of `users` has to wait for: programs that save, and those desktops.

        What is taken later was taken by somebody who has not heard that it begins, and is not waited for.
        """
        held = list(self._held.values())
        desktops = [one for one in held if one.mode == "session" and one.uid in users]
        return [one for one in held if one.mode == "delay"], desktops

    def holds(self, sender: str, mode: str) -> bool:
        """Tell whether a caller holds an inhibitor of that mode."""
        return any(one.sender == sender and one.mode == mode for one in self._held.values())

    def _drop(self, inhibitor: Inhibitor) -> None:
        del self._held[inhibitor.cookie]
        inhibitor.unwatch()
        inhibitor.gone.set()


@dataclass(frozen=True, slots=True)
class Waits:
    """For whom a handoff waits, and how many seconds at most; nobody is false."""

    programs: Sequence[Inhibitor] = ()
    for_programs: float = 0
    desktops: Sequence[Inhibitor] = ()
    for_desktops: float = 0

    def __bool__(self) -> bool:
        return bool(self.programs or self.desktops)

    @property
    def longest(self) -> float:
        """Seconds that it may take."""
        return max(self.for_programs if self.programs else 0, self.longest_for_desktops)

    @property
    def longest_for_desktops(self) -> float:
        """Seconds that the desktops may take."""
        return self.for_desktops if self.desktops else 0

    async def over(self) -> None:
        """Wait for all of them, side by side."""
        await asyncio.gather(released(self.programs, self.for_programs), released(self.desktops, self.for_desktops))


async def released(inhibitors: Sequence[Inhibitor], seconds: float) -> None:
    """Wait until all of them are given back, or their callers gone; at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            for one in inhibitors:
                await one.gone.wait()
    except TimeoutError:
        for one in inhibitors:
            if not one.gone.is_set():
                log.warning("not waiting any longer than %g s for %s, of user %d (%s)", seconds, one.who, one.uid, one.why)


def check_text(name: str, text: str) -> None:
    """Raise InvalidArgsError unless people can be shown this text of a caller's."""
    if not text or len(text) > TEXT or not text.isprintable():
        raise InvalidArgsError(f"{name}: 1 to {TEXT} printable characters are expected.")
