"""logind: sessions and inhibitors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from gpuhandoff.messages import SERVICE_UNKNOWN, Bus, Match, RemoteError, Unsubscribe, Variant
from gpuhandoff.model.world import Session

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
SESSION = "org.freedesktop.login1.Session"
PROPERTIES = "org.freedesktop.DBus.Properties"
DBUS = "org.freedesktop.DBus"
ENDED = frozenset({"org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.login1.NoSuchSession"})
"""What logind says of a session that has ended since it was listed; anything else says nothing of the session."""

log = logging.getLogger(__name__)


class Logins:
    """Who is logged in."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._met = False
        """Whether logind was there once: then its absence does not say that nobody is logged in."""

    async def sessions(self) -> tuple[Session, ...]:
        """Return every session; none when there is no logind. One that ends meanwhile is left out.

        Raises RemoteError when logind is there and does not say.
        """
        try:
            (listed,) = await self._bus.call(NAME, PATH, MANAGER, "ListSessions")
        except RemoteError as error:
            if error.name != SERVICE_UNKNOWN or self._met:
                raise
            return ()
        self._met = True
        found = await asyncio.gather(*(self._session(entry) for entry in listed))
        return tuple(session for session in found if session is not None)

    async def terminate(self, session: str) -> None:
        """End a session; one that is gone is no error."""
        try:
            await self._bus.call(NAME, PATH, MANAGER, "TerminateSession", "s", (session,))
        except RemoteError as error:
            log.info("session %s: %s", session, error.message)

    async def wait_removed(self, sessions: Collection[str], *, timeout: float) -> bool:
        """Wait until none of these sessions is left; False after `timeout` seconds."""
        removed = asyncio.Event()
        unsubscribe = await self._bus.subscribe(Match(MANAGER, "SessionRemoved", sender=NAME), lambda _: removed.set())
        try:
            async with asyncio.timeout(timeout):
                while {session.id for session in await self.sessions()} & set(sessions):
                    await removed.wait()
                    removed.clear()
        except TimeoutError:
            return False
        finally:
            unsubscribe()
        return True

    async def inhibit(self, what: str, who: str, why: str, mode: str) -> int:
        """Take an inhibitor and return its descriptor, which the caller closes; raises RemoteError."""
        return await self._bus.call_for_descriptor(NAME, PATH, MANAGER, "Inhibit", "ssss", (what, who, why, mode))

    async def on_prepare(self, member: str, callback: Callable[[bool], None]) -> Unsubscribe:
        """Hand PrepareForSleep or PrepareForShutdown to `callback`: true before, false after or when it was called off."""
        return await self._bus.subscribe(Match(MANAGER, member, sender=NAME), lambda signal: callback(bool(signal.body[0])))

    async def on_loss(self, callback: Callable[[], None]) -> Unsubscribe:
        """Call `callback` when logind has gone: what it had announced, nobody will take back."""
        match = Match(DBUS, "NameOwnerChanged", sender=DBUS, arg0=NAME)
        return await self._bus.subscribe(match, lambda signal: None if signal.body[2] else callback())

    async def _session(self, entry: list[Any]) -> Session | None:
        """Read one session, whatever further fields a newer logind puts into ListSessions."""
        identifier, path = str(entry[0]), str(entry[4])
        try:
            (properties,) = await self._bus.call(NAME, path, PROPERTIES, "GetAll", "s", (SESSION,))
        except RemoteError as error:
            if error.name not in ENDED:
                raise
            return None
        return Session(
            id=identifier,
            uid=int(entry[1]),
            user=str(entry[2]),
            seat=str(entry[3]),
            kind=_text(properties, "Class"),
            type=_text(properties, "Type"),
            state=_text(properties, "State"),
            scope=_text(properties, "Scope"),
            leader=int(_value(properties, "Leader") or 0),
        )


def _value(properties: dict[str, Variant], name: str) -> Any:
    variant = properties.get(name)
    return variant.value if variant is not None else None


def _text(properties: dict[str, Variant], name: str) -> str:
    value = _value(properties, name)
    return value if isinstance(value, str) else ""
