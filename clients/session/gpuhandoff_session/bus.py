"""One connection to a bus, as this program needs it. The only module here that imports dbus-next."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus
from dbus_next.errors import AuthError, InvalidAddressError

DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
GONE = "org.freedesktop.DBus.Error.Disconnected"
TIMEOUT = "org.freedesktop.DBus.Error.Timeout"
QUICK = 5.0
"""Seconds for a call that nobody has to think about."""


class Typed(NamedTuple):
    """A value with its D-Bus type: what becomes a variant on the bus."""

    signature: str
    value: Any


class CallError(Exception):
    """The other side answered with an error, or not at all."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


@dataclass(frozen=True, slots=True)
class Service:
    """An object of a service, and the interface of it that is meant."""

    name: str
    path: str
    interface: str


@dataclass(slots=True)
class _Watch:
    service: Service
    heard: Callable[[str, list[Any]], None]
    came_or_went: Callable[[str], None]
    owner: str = ""


class Connection:
    """A connection to one bus."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._watches: list[_Watch] = []
        self._bus.add_message_handler(self._receive)
        self.lost = asyncio.create_task(self._wait_lost())
        """Done when the bus is gone."""

    @classmethod
    async def open(cls, address: str) -> Connection:
        """Connect. Raises CallError."""
        try:
            bus = await asyncio.wait_for(MessageBus(bus_address=address).connect(), QUICK)
        except (OSError, EOFError, AuthError, InvalidAddressError, TimeoutError) as error:
            raise CallError(GONE, f"{address}: {error or 'no answer'}") from error
        return cls(bus)

    async def call(
        self, service: Service, member: str, signature: str = "", *body: Any, timeout: float | None = QUICK
    ) -> list[Any]:
        """Call a method and return what it returns, without variants; `timeout` None waits for ever. Raises CallError."""
        message = Message(
            destination=service.name,
            path=service.path,
            interface=service.interface,
            member=member,
            signature=signature,
            body=[_with_variants(one) for one in body],
        )
        answer = asyncio.ensure_future(self._bus.call(message))
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # also when nobody waits for it any more
        try:
            # After a disconnect dbus-next never answers.
            await asyncio.wait({answer, self.lost}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answer.done():
                answer.cancel()
        if self.lost.done() or (answer.done() and answer.exception() is not None):
            raise CallError(GONE, "the bus is gone")
        if not answer.done():
            raise CallError(TIMEOUT, f"{service.name} has not answered {member} within {timeout} s")
        reply = answer.result()
        if reply is None:
            return []
        if reply.message_type is MessageType.ERROR:
            raise CallError(str(reply.error_name), str(reply.body[0]) if reply.body else "no reason was given")
        return [plain(one) for one in reply.body]

    async def properties(self, service: Service) -> dict[str, Any]:
        """Return all properties of the interface. Raises CallError."""
        where = Service(service.name, service.path, PROPERTIES)
        (found,) = await self.call(where, "GetAll", "s", service.interface)
        return dict(found)

    async def owner(self, name: str) -> str:
        """Return the unique name of a well-known name's owner, or "". Raises CallError."""
        try:
            (found,) = await self.call(Service(DBUS, DBUS_PATH, DBUS), "GetNameOwner", "s", name)
        except CallError as error:
            if error.name.endswith(".NameHasNoOwner"):
                return ""
            raise
        return str(found)

    async def watch(
        self, service: Service, heard: Callable[[str, list[Any]], None], came_or_went: Callable[[str], None]
    ) -> None:
        """Hand over all signals of a service's interface from now on, and tell who owns its name, now and when that changes.

        On a bus anybody may send a signal to anybody: only those of the name's owner count. Raises CallError.
        """
        watch = _Watch(service, heard, came_or_went)
        self._watches.append(watch)
        for rule in (
            f"type='signal',sender='{service.name}',interface='{service.interface}'",
            f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{service.name}'",
        ):
            await self.call(Service(DBUS, DBUS_PATH, DBUS), "AddMatch", "s", rule)
        watch.owner = await self.owner(service.name)
        came_or_went(watch.owner)

    async def close(self) -> None:
        """Leave the bus."""
        self._bus.disconnect()  # type: ignore[no-untyped-call]
        await self.lost

    def _receive(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        for watch in self._watches:
            if message.sender == DBUS and message.member == "NameOwnerChanged" and message.body[0] == watch.service.name:
                watch.owner = str(message.body[2])
                watch.came_or_went(watch.owner)
            elif watch.owner and message.sender == watch.owner and message.interface == watch.service.interface:
                watch.heard(str(message.member), [plain(one) for one in message.body])

    async def _wait_lost(self) -> None:
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


def system_address() -> str:
    """Return where the system bus is."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/dbus/system_bus_socket")


def session_address() -> str:
    """Return where this user's bus is."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS", f"unix:path={runtime}/bus")


def plain(value: Any) -> Any:
    """Return a value without D-Bus variants."""
    match value:
        case Variant():
            return plain(value.value)
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
    return value


def _with_variants(value: Any) -> Any:
    match value:
        case Typed(signature, inner):
            return Variant(signature, inner)
        case dict():
            return {key: _with_variants(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_with_variants(inner) for inner in value]
    return value
