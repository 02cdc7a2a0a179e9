"""gpuhandoffd, as a desktop sees it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from gpuhandoff import names
from gpuhandoff_session.bus import CallError, Connection, Service, Typed
from gpuhandoff_session.sentences import short_name

MANAGER = Service(names.BUS_NAME, names.MANAGER_PATH, names.MANAGER_INTERFACE)
WHO, WHY = "The desktop", "programs are to be closed, and the person asked"
PREVIEW_PATIENCE = 3.0
"""Seconds for the names of what ends: a countdown without them is better than none in time."""
MOVES = 50
"""How far back what a desktop should be told can lie."""


@dataclass(frozen=True, slots=True)
class Handoff:
    """One that is about to begin, and waits for the desktops that it ends."""

    job: str
    card: str
    vm: str
    desktops: tuple[str, ...]
    """Users whose desktops it ends."""
    wait: float
    """Seconds that it waits at most."""
    address: str


class Daemon:
    """Asks; whatever fails is a CallError."""

    def __init__(self, system: Connection) -> None:
        self._system = system
        self._cookie = 0
        self._turn = asyncio.Lock()

    async def inhibit(self) -> None:
        """Have handoffs that end this user's desktop wait for us; once."""
        async with self._turn:
            if not self._cookie:
                (self._cookie,) = await self._system.call(MANAGER, "Inhibit", "sss", WHO, WHY, "session", timeout=None)

    async def release(self) -> None:
        """Let the handoff go on, if we hold it."""
        async with self._turn:
            cookie, self._cookie = self._cookie, 0
            if cookie:
                await self._system.call(MANAGER, "Uninhibit", "u", cookie)

    def forget(self) -> None:
        """Note that the daemon is gone, and our inhibitor with it."""
        self._cookie = 0

    async def object(self, job: str, why: str) -> None:
        """Refuse a handoff."""
        await self._system.call(Service(names.BUS_NAME, job, names.JOB_INTERFACE), "Object", "s", why)

    async def handoff(self, gpu: str) -> Handoff | None:
        """Return the handoff for which a GPU's object announces that it begins; None when it does not wait (any more)."""
        card = await self._system.properties(Service(names.BUS_NAME, gpu, names.GPU_INTERFACE))
        if card["Job"] == "/":
            return None
        job = await self._system.properties(Service(names.BUS_NAME, card["Job"], names.JOB_INTERFACE))
        if not job["DesktopsUntil"]:
            return None
        wait = job["DesktopsUntil"] / 1e6 - time.time()
        return Handoff(card["Job"], short_name(card["Name"]), job["Vm"], tuple(job["Desktops"]), wait, card["Address"])

    async def programs(self, handoff: Handoff) -> tuple[tuple[str, ...], int]:
        """Return which programs end, by the names that people call them, and how many more; none where we may not ask.

        What the handoff was allowed is not told: with everything allowed, a preview is of any.
        """
        allowed = {"stop-display": Typed("b", True), "accept-risk": Typed("b", True), "holders": Typed("s", "terminate")}
        options = {"vm": Typed("s", handoff.vm), **allowed}
        arguments = (handoff.address, "handoff", options)
        try:
            (found,) = await self._system.call(MANAGER, "Preview", "ssa{sv}", *arguments, timeout=PREVIEW_PATIENCE)
        except CallError:
            return (), 0
        killed = [str(who).partition(", ")[0] for who in found.get("ended", [])]  # "python3, in your session"
        names_told = dict.fromkeys([*(str(name) for name in found.get("programs", [])), *killed])
        return tuple(names_told), int(found.get("more-programs", 0))

    async def message(self, job: str) -> str:
        """Return what an ended job has to say."""
        try:
            told = await self._system.properties(Service(names.BUS_NAME, job, names.JOB_INTERFACE))
        except CallError:
            return ""
        return str(told["ErrorMessage"])

    async def history(self) -> list[dict[str, Any]]:
        """Return the latest moves, newest first."""
        (moves,) = await self._system.call(MANAGER, "History", "su", "", MOVES)
        return list(moves)
