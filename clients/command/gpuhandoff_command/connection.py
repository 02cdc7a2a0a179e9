"""The bus, as the command needs it: call, listen, leave. The only module here that imports dbus-next."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant
from dbus_next.aio import MessageBus

from gpuhandoff import names

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
QUICK = 25.0
"""Seconds for calls that do not wait for a person or for hardware."""

Listener = Callable[[str, str, list[Any]], None]
"""Told of a signal: object path, member, arguments."""


class CallError(Exception):
    """The daemon, or the bus, answered with an error."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class Connection:
    """A connection to the daemon."""

    def __init__(self, bus: MessageBus, *, ask: bool) -> None:
        self._bus = bus
        self._ask = ask
        self._lost: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, *, ask: bool) -> Connection:
        """Connect to the system bus; `ask`: a password prompt may come up. Raises CallError."""
        address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_BUS)
        try:
            bus = await MessageBus(bus_address=address).connect()
        except (OSError, EOFError) as error:
            raise CallError("Disconnected", f"The system bus cannot be reached: {error}.") from error
        connection = cls(bus, ask=ask)
        connection._lost = asyncio.create_task(connection._wait_lost())
        return connection

    async def manager(self, member: str, signature: str = "", *arguments: Any, timeout: float | None = QUICK) -> Any:
        """Call a method of the manager; return its only result, or None."""
        body = await self.call(names.MANAGER_PATH, names.MANAGER_INTERFACE, member, signature, *arguments, timeout=timeout)
        return body[0] if body else None

    async def call(
        self, path: str, interface: str, member: str, signature: str = "", *arguments: Any, timeout: float | None = QUICK
    ) -> list[Any]:
        """Call a method of the daemon; raises CallError. `timeout` None waits for as long as a person needs."""
        return await self._send(names.BUS_NAME, path, interface, member, signature, arguments, timeout)

    async def properties(self, path: str, interface: str) -> dict[str, Any]:
        """Return an object's properties."""
        (found,) = await self.call(path, PROPERTIES, "GetAll", "s", interface)
        return {name: variant.value for name, variant in found.items()}

    async def listen(self, listener: Listener) -> None:
        """Tell `listener` every signal of the daemon from now on."""

        def receive(message: Message) -> None:
            if message.message_type is MessageType.SIGNAL and (message.interface or "").startswith("org.gpuhandoff."):
                listener(message.path or "", message.member or "", plain(message.body))

        self._bus.add_message_handler(receive)
        rule = f"type='signal',sender='{names.BUS_NAME}'"
        await self._send(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", (rule,), QUICK)

    async def until_gone(self) -> None:
        """Return when the bus is gone."""
        if self._lost is not None:
            await asyncio.shield(self._lost)

    async def watch_owner(self, callback: Callable[[str], None]) -> None:
        """Tell `callback` the daemon's new unique name whenever it comes or goes (then empty)."""

        def receive(message: Message) -> None:
            if message.member == "NameOwnerChanged" and message.body[0] == names.BUS_NAME:
                callback(str(message.body[2]))

        self._bus.add_message_handler(receive)
        rule = f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{names.BUS_NAME}'"
        await self._send(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", (rule,), QUICK)

    async def close(self) -> None:
        """Leave the bus."""
        self._bus.disconnect()  # type: ignore[no-untyped-call]
        await self.until_gone()

    async def _wait_lost(self) -> None:
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    async def _send(
        self, to: str, path: str, interface: str, member: str, signature: str, body: Any, timeout: float | None
    ) -> list[Any]:
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if self._ask else MessageFlag.NONE
        message = Message(
            destination=to, path=path, interface=interface, member=member, signature=signature, body=list(body), flags=flags
        )
        reply = await self._answered(self._bus.call(message), member, timeout)
        if reply is None:
            raise CallError("Disconnected", "The system bus went away.")
        if reply.message_type is MessageType.ERROR:
            raise CallError(str(reply.error_name), str(reply.body[0]) if reply.body else "no reason given")
        return list(reply.body)

    async def _answered(self, call: Awaitable[Message | None], member: str, timeout: float | None) -> Message | None:
        """Wait for the answer, the end of the bus, or the time-out, whichever comes first."""
        answer = asyncio.ensure_future(call)
        waiting = {answer} if self._lost is None else {answer, self._lost}
        done, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer in done:
            return answer.result()
        answer.cancel()
        if done:
            return None
        raise CallError("org.freedesktop.DBus.Error.NoReply", f"gpuhandoffd did not answer {member} within {timeout:g} s.")


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
