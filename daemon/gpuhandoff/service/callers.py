"""Who calls, and how much of the daemon each user may have at once, with however many connections."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable

from gpuhandoff.errors import LimitsExceededError
from gpuhandoff.messages import Bus, RemoteError
from gpuhandoff.service.owners import DBUS, DBUS_PATH

PER_USER = 256
"""Calls of one user that are answered at the same time; root has no limit."""
AT_ONCE = 64
"""Callers whose user is asked for at the same time: who connects and leaves by the thousand must not fill the memory."""
REMEMBERED = 1024
"""Unique names whose user is known. They are never given to anybody else, so that this cannot be wrong."""


class Callers:
    """Counts calls by user."""

    def __init__(self, bus: Bus, room: Callable[[], None]) -> None:
        self._bus = bus
        self._room = room
        self._users: OrderedDict[str, int] = OrderedDict()
        self._asking: dict[str, asyncio.Task[int | None]] = {}
        self._calls: Counter[int] = Counter()

    async def enter(self, sender: str) -> Callable[[], None] | None:
        """Count a call, and return what ends it, None for a caller that has left. Raises LimitsExceededError."""
        user = await self._user(sender)
        if user is None:
            return None
        if user == 0:
            return lambda: None
        if self._calls[user] >= PER_USER:
            raise LimitsExceededError(f"You have {PER_USER} calls waiting already.")
        self._calls[user] += 1
        return lambda: self._leave(user)

    def have_room(self) -> bool:
        """Tell whether further callers should be looked at now; `room` is called when that may have changed."""
        return len(self._asking) < AT_ONCE

    def _known(self, sender: str) -> None:
        del self._asking[sender]
        self._room()

    def _leave(self, user: int) -> None:
        self._calls[user] -= 1
        if not self._calls[user]:
            del self._calls[user]

    async def _user(self, sender: str) -> int | None:
        if sender in self._users:
            return self._users[sender]
        if sender not in self._asking:  # once for all of its calls
            self._asking[sender] = task = asyncio.create_task(self._ask(sender))
            task.add_done_callback(lambda _: self._known(sender))
        return await asyncio.shield(self._asking[sender])

    async def _ask(self, sender: str) -> int | None:
        try:
            (user,) = await self._bus.call(DBUS, DBUS_PATH, DBUS, "GetConnectionUnixUser", "s", (sender,))
        except RemoteError:
            return None
        self._users[sender] = int(user)
        if len(self._users) > REMEMBERED:
            self._users.popitem(last=False)
        return int(user)
