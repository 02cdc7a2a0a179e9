"""The bus, as the command needs it: call, listen, leave. The only module here that imports dbus-next."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant
from dbus_next.aio import MessageBus
from dbus_next.errors import AuthError, InvalidAddressError

from gpuhandoff import names
from gpuhandoff_command.arguments import Typed
from gpuhandoff_command.exits import GONE, NO_BUS, TIMEOUT, CallError

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
SYSTEMD = "org.freedesktop.systemd1"
SYSTEMD_PATH = "/org/freedesktop/systemd1"
SYSTEMD_MANAGER = "org.freedesktop.systemd1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
RULES = (
    f"type='signal',sender='{names.BUS_NAME}',interface='{names.MANAGER_INTERFACE}'",
    f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{names.BUS_NAME}'",
)
"""What the bus is to pass on; it counts how often each was asked for, and forgets them with the connection."""
QUICK = 30.0
"""Seconds for calls that wait for no person and no hardware: longer than the 25 that the bus gives a daemon to start."""

Listener = Callable[[str, list[Any]], None]
"""Told of a signal of the daemon: member and arguments."""
OwnerListener = Callable[[bool], None]
"""Told when the daemon comes (True) or goes (False)."""


class Connection:
    """A connection to the daemon."""

    def __init__(self, bus: MessageBus, *, ask: bool) -> None:
        self._bus = bus
        self._ask = ask
        self._owner = ""
        self._lost: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, *, ask: bool) -> Connection:
        """Connect to the system bus; `ask`: a password prompt may come up. Raises CallError."""
        address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_BUS)
        try:
            bus = await asyncio.wait_for(MessageBus(bus_address=address).connect(), QUICK)
        except TimeoutError as error:
            raise CallError(NO_BUS, f"{address} does not answer.") from error
        except (OSError, EOFError, AuthError, InvalidAddressError) as error:
            raise CallError(NO_BUS, f"{address}: {getattr(error, 'strerror', None) or error}.") from error
        connection = cls(bus, ask=ask)
        connection._lost = asyncio.create_task(connection._wait_lost())
        return connection

    @property
    def lost(self) -> asyncio.Task[None]:
        """Done when the bus is gone."""
        if self._lost is None:
            raise RuntimeError("not connected")
        return self._lost

    async def manager(
        self, member: str, signature: str = "", *arguments: Any, timeout: float | None = QUICK, interactive: bool = True
    ) -> Any:
        """Call a method of the manager; return its only result, or None.

        `timeout` None waits for as long as a person needs for a password.
        """
        interface = names.MANAGER_INTERFACE
        ask = self._ask and interactive
        message = _message(names.BUS_NAME, names.MANAGER_PATH, interface, member, signature, arguments, ask=ask)
        body = await self._send(message, timeout)
        return body[0] if body else None

    async def cancel(self, job: str) -> None:
        """Cancel a job."""
        await self._send(_message(names.BUS_NAME, job, names.JOB_INTERFACE, "Cancel", "", (), ask=self._ask), None)

    async def job(self, path: str) -> dict[str, Any]:
        """Return a job's properties."""
        message = _message(names.BUS_NAME, path, PROPERTIES, "GetAll", "s", (names.JOB_INTERFACE,), ask=False)
        (found,) = await self._send(message, QUICK)
        return {name: variant.value for name, variant in found.items()}

    async def start_unit(self, name: str, properties: Sequence[tuple[str, Typed]]) -> None:
        """Have systemd start a transient unit, if this user may without a password. Raises CallError."""
        signature = "ssa(sv)a(sa(sv))"
        body: tuple[Any, ...] = (name, "fail", [list(one) for one in properties], [])
        message = _message(SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER, "StartTransientUnit", signature, body, ask=False)
        await self._send(message, QUICK)

    @asynccontextmanager
    async def listening(self, listener: Listener, came_or_went: OwnerListener) -> AsyncIterator[None]:
        """Tell `listener` every signal of the daemon meanwhile; starts the daemon where the bus can. Raises CallError.

        Anybody may send a signal to anybody on the system bus: only those of the name's owner count.
        """

        def receive(message: Message) -> None:
            if message.message_type is not MessageType.SIGNAL:
                return
            if message.sender == DBUS and message.member == "NameOwnerChanged" and message.body[0] == names.BUS_NAME:
                self._owner = str(message.body[2])
                came_or_went(bool(self._owner))
            elif self._owner and message.sender == self._owner and message.interface == names.MANAGER_INTERFACE:
                listener(message.member or "", plain(message.body))

        self._bus.add_message_handler(receive)
        try:
            for rule in RULES:
                await self._ask_bus("AddMatch", "s", rule)
            self._owner = await self._name_owner() or await self._start()
            yield
        finally:
            self._bus.remove_message_handler(receive)

    async def close(self) -> None:
        """Leave the bus."""
        self._bus.disconnect()  # type: ignore[no-untyped-call]
        await self.lost

    async def _wait_lost(self) -> None:
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    async def _name_owner(self) -> str:
        try:
            (owner,) = await self._ask_bus("GetNameOwner", "s", names.BUS_NAME)
        except CallError as error:
            if error.name.endswith(".NameHasNoOwner"):
                return ""
            raise
        return str(owner)

    async def _start(self) -> str:
        await self._ask_bus("StartServiceByName", "su", names.BUS_NAME, 0)
        owner = await self._name_owner()
        if not owner:
            raise CallError(GONE, "It went away.")
        return owner

    async def _ask_bus(self, member: str, signature: str, *arguments: Any) -> list[Any]:
        return await self._send(_message(DBUS, DBUS_PATH, DBUS, member, signature, arguments, ask=False), QUICK)

    async def _send(self, message: Message, timeout: float | None) -> list[Any]:
        """Wait for the answer, the end of the bus, or the time-out, whichever comes first."""
        answer = asyncio.ensure_future(self._bus.call(message))
        try:
            done, _ = await asyncio.wait({answer, self.lost}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answer.done():
                answer.cancel()
        if not done:
            raise CallError(TIMEOUT, f"gpuhandoffd did not answer {message.member} within {timeout:g} s.")
        if answer not in done:
            raise CallError(NO_BUS, "it went away.")
        reply = answer.result()
        if reply is None:
            raise CallError(NO_BUS, "it went away.")
        if reply.message_type is MessageType.ERROR:
            text = str(reply.body[0]) if reply.body else "no reason was given."
            raise CallError(str(reply.error_name), text)
        return list(reply.body)


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


def _message(to: str, path: str, interface: str, member: str, signature: str, body: Sequence[Any], *, ask: bool) -> Message:
    return Message(
        destination=to,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=[_with_variants(one) for one in body],
        flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if ask else MessageFlag.NONE,
    )


def _with_variants(value: Any) -> Any:
    match value:
        case Typed(signature, inner):
            return Variant(signature, inner)
        case dict():
            return {key: _with_variants(inner) for key, inner in value.items()}
        case list():
            return [_with_variants(inner) for inner in value]
    return value
