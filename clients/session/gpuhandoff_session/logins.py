"""logind: whether this is anybody's desktop, and when it has really ended. We are told to end a moment before."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from gpuhandoff_session.bus import CallError, Connection, Service

LOGIND = Service("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
SESSION = "org.freedesktop.login1.Session"
USER = "org.freedesktop.login1.User"
GRAPHICAL = frozenset({"wayland", "x11", "mir"})

log = logging.getLogger(__name__)


async def is_greeter(system: Connection, uid: int) -> bool:
    """Tell whether this user is a display manager's: not by its number, which GDM 49 takes from any range."""
    try:
        (path,) = await system.call(LOGIND, "GetUser", "u", uid)
        user = await system.properties(Service(LOGIND.name, path, USER))
        session = await system.properties(Service(LOGIND.name, user["Display"][1], SESSION))
    except CallError as error:
        log.info("logind does not say whose desktop this is: %s", error.message)
        return False
    return bool(session["Class"] == "greeter")


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
