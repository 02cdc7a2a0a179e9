"""logind: when this user's graphical session has really ended. Ours is told to end a moment before."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from gpuhandoff_session.bus import CallError, Connection, Service

LOGIND = Service("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
SESSION = "org.freedesktop.login1.Session"
GRAPHICAL = frozenset({"wayland", "x11", "mir"})

log = logging.getLogger(__name__)


async def wait_ended(system: Connection, user: str, *, timeout: float) -> bool:
    """Wait until none of the user's graphical sessions is left, at most `timeout` seconds; tell whether that is so."""
    changed = asyncio.Event()

    def heard(member: str, _: list[Any]) -> None:
        if member == "SessionRemoved":
            changed.set()

    try:
        async with asyncio.timeout(timeout):
            await system.watch(LOGIND, heard, lambda _: None)
            while await _graphical(system, user):
                await changed.wait()
                changed.clear()
    except TimeoutError:
        return False
    except CallError as error:
        log.info("logind does not say when the session has ended: %s", error.message)
        return False
    return True


async def _graphical(system: Connection, user: str) -> list[str]:
    (rows,) = await system.call(LOGIND, "ListSessions")
    found = []
    for name, _, whose, seat, path in rows:
        if whose != user or not seat:
            continue
        try:
            session = await system.properties(Service(LOGIND.name, path, SESSION))
        except CallError:  # it has ended since
            continue
        if session["Type"] in GRAPHICAL and session["State"] != "closing":
            found.append(str(name))
    return found
