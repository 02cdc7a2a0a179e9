"""The session service's connection, on a bus in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from gpuhandoff.messages import NO_REPLY, Match, RemoteError, Variant
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff_session.bus import TIMEOUT, CallError, Connection, Service, Typed
from tests.support.notices import NOTIFICATIONS

HELPER_PID = 4242
_MEMBERS = {
    "org.gpuhandoff.Manager": ("PrepareForHandoff", "JobRemoved", "StateChanged"),
    NOTIFICATIONS: ("ActionInvoked", "NotificationClosed"),
    "org.gnome.SessionManager": ("InhibitorAdded", "InhibitorRemoved"),
    "org.freedesktop.login1.Manager": ("SessionRemoved",),
}
"""By interface, the signals that a Wire listens for: a bus in this process has no rules without a member."""


class Wire:
    """What gpuhandoff_session.bus.Connection is on a real bus."""

    def __init__(self, broker: LoopbackBroker, uid: int) -> None:
        self.broker = broker
        self.bus = broker.connect(uid=uid)
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.activatable: dict[str, Callable[[], Awaitable[None]]] = {}

    @property
    def connection(self) -> Connection:
        """This, by the type that the program asks for."""
        return cast("Connection", self)

    async def call(
        self, service: Service, member: str, signature: str = "", *body: Any, timeout: float | None = 5.0
    ) -> list[Any]:
        if member == "GetConnectionUnixProcessID":
            return [HELPER_PID]
        start = self.activatable.get(service.name)
        if start is not None and not self.broker.owner(service.name):
            await start()
        where = (service.name, service.path, service.interface, member)
        given = tuple(_to_ours(one) for one in body)
        try:
            reply = await self.bus.call(*where, signature, given, timeout=3600 if timeout is None else timeout)
        except RemoteError as error:
            raise CallError(TIMEOUT if error.name == NO_REPLY else error.name, error.message) from error
        return [plain(one) for one in reply]

    async def properties(self, service: Service) -> dict[str, Any]:
        where = Service(service.name, service.path, "org.freedesktop.DBus.Properties")
        (found,) = await self.call(where, "GetAll", "s", service.interface)
        return dict(found)

    async def owner(self, name: str) -> str:
        return self.broker.owner(name)

    async def watch(
        self, service: Service, heard: Callable[[str, list[Any]], None], came_or_went: Callable[[str], None]
    ) -> None:
        for member in _MEMBERS.get(service.interface, ()):
            match = Match(service.interface, member, sender=service.name)
            await self.bus.subscribe(match, lambda signal: heard(signal.member, [plain(one) for one in signal.body]))
        changed = Match("org.freedesktop.DBus", "NameOwnerChanged", arg0=service.name)
        await self.bus.subscribe(changed, lambda signal: came_or_went(str(signal.body[2])))
        came_or_went(self.broker.owner(service.name))

    def cut(self) -> None:
        """Leave, as in a crash."""
        self.bus.drop()
        if not self.lost.done():
            self.lost.set_result(None)


def _to_ours(value: Any) -> Any:
    match value:
        case Typed(signature, inner):
            return Variant(signature, inner)
        case dict():
            return {key: _to_ours(inner) for key, inner in value.items()}
    return value


def plain(value: Any) -> Any:
    match value:
        case Variant(_, inner):
            return plain(inner)
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    return value
