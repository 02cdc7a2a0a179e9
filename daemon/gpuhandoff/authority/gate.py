"""The gate: polkit is asked about the caller's unique bus name, which nobody else can take. Default deny."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
from collections.abc import Mapping, Sequence

from gpuhandoff.authority.questions import Questions
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
        self._questions = Questions()

    async def uid(self, sender: str) -> int:
        """Return a caller's user id; raises AccessDeniedError when it has left."""
        try:
            (uid,) = await self._bus.call(DBUS, DBUS_PATH, DBUS, "GetConnectionUnixUser", "s", (sender,))
        except RemoteError as error:
            raise AccessDeniedError("The caller has left the bus.") from error
        return int(uid)

    async def allow_root(self, sender: str) -> None:
        """Return when a caller is root; raise AccessDeniedError otherwise. The bus policy says the same: two locks."""
        if await self.uid(sender) != 0:
            raise AccessDeniedError("Only root may do this.")

    async def allow(self, sender: str, actions: Sequence[str], details: Mapping[str, str], *, interactive: bool) -> None:
        """Return when polkit allows all `actions`; raise AccessDeniedError or AuthorizationRequiredError otherwise.

        A password prompt may take minutes. A caller that leaves meanwhile is refused, and its prompt closed. Raises
        LimitsExceededError where too many are open.
        """
        if not actions:
            raise AccessDeniedError("Nothing allows this.")
        for action in actions:
            await self._ask(sender, action, details, interactive=interactive)

    async def _ask(self, sender: str, action: str, details: Mapping[str, str], *, interactive: bool) -> None:
        departed = asyncio.Event()

        def changed(signal: Signal) -> None:
            if signal.body[2] == "":
                departed.set()

        try:
            unwatch = await self._bus.subscribe(Match(DBUS, "NameOwnerChanged", sender=DBUS, arg0=sender), changed)
        except RemoteError as error:
            raise AccessDeniedError("The message bus cannot be asked who is calling.") from error
        try:
            uid = await self.uid(sender)  # it may have left before we listened
            async with self._questions.place:
                authorized, challenge, hints = await self._check(sender, action, details, departed, interactive=False)
            if challenge and interactive and not authorized:
                with self._questions.prompt(uid):
                    authorized, challenge, hints = await self._check(sender, action, details, departed, interactive=True)
        except RemoteError as error:
            await self._without_polkit(sender, action, error)
            return
        finally:
            unwatch()
        if authorized:
            return
        if challenge and not interactive:
            raise AuthorizationRequiredError(f"{action} needs a password, and this call does not allow asking for one.")
        if hints.get("polkit.dismissed"):
            raise AccessDeniedError(f"The password prompt was dismissed ({action}).")
        if challenge:
            raise AccessDeniedError(f"{action} needs a password, and nobody could be asked for it.")
        raise AccessDeniedError(f"You are not allowed to do this ({action}).")

    async def _check(
        self, sender: str, action: str, details: Mapping[str, str], departed: asyncio.Event, *, interactive: bool
    ) -> tuple[bool, bool, Mapping[str, str]]:
        """Return polkit's answer: authorized, challenge, hints. Raises AccessDeniedError once the caller has left."""
        cancellation = f"gpuhandoff-{os.getpid()}-{next(self._numbers)}"
        call = self._bus.call(
            POLKIT,
            AUTHORITY_PATH,
            AUTHORITY,
            "CheckAuthorization",
            "(sa{sv})sa{ss}us",
            (
                ["system-bus-name", {"name": Variant("s", sender)}],
                action,
                dict(details),
                _ALLOW_INTERACTION if interactive else 0,
                cancellation,
            ),
            timeout=math.inf,
        )
        check = asyncio.ensure_future(call)
        check.add_done_callback(lambda done: done.cancelled() or done.exception())  # also when nobody waits for it any more
        leaving = asyncio.create_task(departed.wait())
        try:
            await asyncio.wait({check, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not check.done():
                check.cancel()
                self._cancel(cancellation)
        if departed.is_set():
            await asyncio.gather(check, return_exceptions=True)
            raise AccessDeniedError("The caller has left the bus.")
        ((authorized, challenge, hints),) = await check
        return bool(authorized), bool(challenge), hints

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
