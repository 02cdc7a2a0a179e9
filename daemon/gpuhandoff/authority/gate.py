"""The gate: polkit is asked about the caller's unique bus name, which nobody else can take. Default deny."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
from collections.abc import Mapping, Sequence

from gpuhandoff.errors import AccessDeniedError, AuthorizationRequiredError
from gpuhandoff.messages import Bus, Match, RemoteError, Signal, Variant

POLKIT = "org.freedesktop.PolicyKit1"
AUTHORITY_PATH = "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"

_ALLOW_INTERACTION = 1
_ABSENT = {
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.ServiceNotFound",
    "org.freedesktop.systemd1.NoSuchUnit",
}

log = logging.getLogger(__name__)


class Gate:
    """Asks who is asking."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._numbers = itertools.count(1)
        self._cancelling: set[asyncio.Task[None]] = set()

    async def uid(self, sender: str) -> int:
        """Return a caller's user id; raises AccessDeniedError when it has left."""
        try:
            (uid,) = await self._bus.call(DBUS, DBUS_PATH, DBUS, "GetConnectionUnixUser", "s", (sender,))
        except RemoteError as error:
            raise AccessDeniedError("The caller has left the bus.") from error
        return int(uid)

    async def allow(self, sender: str, actions: Sequence[str], details: Mapping[str, str], *, interactive: bool) -> None:
        """Return when polkit allows all `actions`; raise AccessDeniedError or AuthorizationRequiredError otherwise.

        A password prompt may take minutes. A caller that leaves meanwhile is refused, and its prompt closed.
        """
        if not actions:
            raise AccessDeniedError("Nothing allows this.")
        for action in actions:
            await self._ask(sender, action, details, interactive=interactive)

    async def _ask(self, sender: str, action: str, details: Mapping[str, str], *, interactive: bool) -> None:
        cancellation = f"gpuhandoff-{os.getpid()}-{next(self._numbers)}"
        left = False

        def departed(signal: Signal) -> None:
            nonlocal left
            if signal.body[2] == "":
                left = True
                self._cancel(cancellation)

        unwatch = await self._bus.subscribe(Match(DBUS, "NameOwnerChanged", sender=DBUS, arg0=sender), departed)
        try:
            await self.uid(sender)  # it may have left before we listened
            subject = ["system-bus-name", {"name": Variant("s", sender)}]
            flags = _ALLOW_INTERACTION if interactive else 0
            ((authorized, challenge, _),) = await self._bus.call(
                POLKIT,
                AUTHORITY_PATH,
                AUTHORITY,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                (subject, action, dict(details), flags, cancellation),
                timeout=math.inf,
            )
        except RemoteError as error:
            if left:
                raise AccessDeniedError("The caller has left the bus.") from error
            await self._without_polkit(sender, action, error)
            return
        finally:
            unwatch()
        if left:
            raise AccessDeniedError("The caller has left the bus.")
        if authorized:
            return
        if challenge and not interactive:
            raise AuthorizationRequiredError(f"{action} needs a password, and this call does not allow asking for one.")
        raise AccessDeniedError(f"You are not allowed to do this ({action}).")

    async def _without_polkit(self, sender: str, action: str, error: RemoteError) -> None:
        """Root works without polkit, nobody else does."""
        if error.name not in _ABSENT:
            log.warning("polkit does not answer: %s", error)
        if await self.uid(sender) != 0:
            raise AccessDeniedError(f"polkit cannot be asked whether you are allowed to do this ({action}).") from error

    def _cancel(self, cancellation: str) -> None:
        task = asyncio.create_task(self._close_prompt(cancellation))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _close_prompt(self, cancellation: str) -> None:
        try:
            await self._bus.call(POLKIT, AUTHORITY_PATH, AUTHORITY, "CancelCheckAuthorization", "s", (cancellation,))
        except RemoteError as error:
            log.debug("no prompt to close: %s", error)
