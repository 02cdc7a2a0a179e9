"""The system bus, by dbus-next at message level; nothing else in the daemon imports it.

dbus-next 0.2.3 has no release since 2021 and defects that an unprivileged caller could use. Each work-around here has a
test in tests/bus that fails without it: a full socket buffer ends the connection (its issue 153); stray descriptors leak
(162), so the serving connection negotiates none; exceptions reach callers as tracebacks, so calls never reach its own
dispatch; calls never return after a disconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from dbus_next import Message, MessageFlag, MessageType
from dbus_next import Variant as DBusVariant
from dbus_next.aio import MessageBus
from dbus_next.constants import NameFlag, RequestNameReply
from dbus_next.errors import AuthError

from gpuhandoff.errors import LimitsExceededError, ProblemError
from gpuhandoff.messages import (
    DISCONNECTED,
    NO_REPLY,
    Body,
    Call,
    Handler,
    Match,
    RemoteError,
    Reply,
    Signal,
    Unsubscribe,
    Variant,
    error_name,
)
from gpuhandoff.service.owners import Owners

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
PER_CALLER = 64
"""Calls of one caller that are answered at the same time; more are LimitsExceeded."""
NAME_TAKEN = "org.freedesktop.DBus.Error.NameHasOwner"

log = logging.getLogger(__name__)


async def connect(address: str | None = None, *, descriptors: bool = False) -> DBus:
    """Return a connection to the system bus, or to the bus at `address`; raises RemoteError.

    `descriptors`: the connection can send file descriptors, and then has to close those that strangers send.
    """
    connection = DBus(_library_bus(address, descriptors=descriptors), address)
    await connection.open()
    return connection


class DBus:
    """One connection, a `messages.Bus`."""

    def __init__(self, bus: MessageBus, address: str | None) -> None:
        self._bus = bus
        self._address = address
        self._closed = asyncio.Event()
        self._handler: Handler | None = None
        self._subscriptions: list[tuple[Match, Callable[[Signal], None]]] = []
        self._rules: Counter[str] = Counter()
        self._answering: set[asyncio.Task[None]] = set()
        self._in_flight: Counter[str] = Counter()
        self._waiting: set[asyncio.Future[Message]] = set()
        self._owners = Owners(self)
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; raises RemoteError."""
        await _open(self._bus)
        self._bus.add_message_handler(self._receive)
        self._watch = asyncio.create_task(self._watch_end())

    @property
    def unique_name(self) -> str:
        """This connection's unique name."""
        return self._bus.unique_name or ""

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Body = (),
        *,
        timeout: float = 25.0,
        interactive: bool = False,
    ) -> Body:
        """Call a method and return the reply's body; raises RemoteError."""
        message = _method_call(destination, path, interface, member, signature, body, interactive=interactive)
        return tuple(_from_library(value) for value in (await self.send(message, timeout)).body)

    async def call_for_descriptor(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Body = ()
    ) -> int:
        """Call a method that returns one descriptor, on a connection of its own: this one must not accept any."""
        other = await connect(self._address, descriptors=True)
        try:
            reply = await other.send(_method_call(destination, path, interface, member, signature, body), 25.0)
            (index,) = reply.body
            for place, extra in enumerate(reply.unix_fds):
                if place != index:
                    os.close(extra)
            descriptor = int(reply.unix_fds[index])
            os.set_inheritable(descriptor, False)
            return descriptor
        finally:
            await other.close()

    async def subscribe(self, match: Match, callback: Callable[[Signal], None]) -> Unsubscribe:
        """Hand every matching signal to `callback`."""
        if match.sender is not None:
            await self._owners.follow(match.sender)
        rule = _rule(match)
        self._rules[rule] += 1
        if self._rules[rule] == 1:
            await self.call(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", (rule,))
        entry = (match, callback)
        self._subscriptions.append(entry)

        def unsubscribe() -> None:
            if any(one is entry for one in self._subscriptions):
                self._subscriptions = [one for one in self._subscriptions if one is not entry]
                self._rules[rule] -= 1
                if not self._rules[rule]:
                    del self._rules[rule]
                    self._send_and_forget(_method_call(DBUS, DBUS_PATH, DBUS, "RemoveMatch", "s", (rule,)))

        return unsubscribe

    def emit(self, signal: Signal) -> None:
        """Send a signal."""
        body = [_to_library(value) for value in signal.body]
        self._send_and_forget(Message.new_signal(signal.path, signal.interface, signal.member, signal.signature, body))

    def serve(self, handler: Handler) -> None:
        """Answer calls with `handler`."""
        self._handler = handler

    async def request_name(self, name: str) -> None:
        """Own a name."""
        (reply,) = await self.call(DBUS, DBUS_PATH, DBUS, "RequestName", "su", (name, int(NameFlag.DO_NOT_QUEUE)))
        if reply not in {RequestNameReply.PRIMARY_OWNER.value, RequestNameReply.ALREADY_OWNER.value}:
            raise RemoteError(NAME_TAKEN, f"Somebody else owns the name {name}.")

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        await self._closed.wait()

    async def close(self) -> None:
        """Leave the bus."""
        if not self._closed.is_set():
            self._bus.disconnect()  # type: ignore[no-untyped-call]
            await self._closed.wait()
        if self._watch is not None:
            await self._watch

    async def _watch_end(self) -> None:
        """Fail what waits once the connection is gone: dbus-next would let it wait for ever."""
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        self._closed.set()
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(RemoteError(DISCONNECTED, "The connection to the message bus is gone."))
        for task in list(self._answering):
            task.cancel()

    async def send(self, message: Message, timeout: float) -> Message:
        """Send a method call and return its reply; raises RemoteError."""
        if self._closed.is_set():
            raise RemoteError(DISCONNECTED, "The connection to the message bus is gone.")
        message.serial = self._bus.next_serial()
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def answered(reply: Message | None, _: object) -> None:
            if reply is not None and not future.done():
                future.set_result(reply)

        # Not bus.call(): that one can neither time out nor be told of a disconnect.
        self._bus._method_return_handlers[message.serial] = answered  # noqa: SLF001
        self._waiting.add(future)
        try:
            self._send_and_forget(message)
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                reply = await future
        except TimeoutError:
            raise RemoteError(NO_REPLY, f"{message.destination} did not answer within {timeout:g} s.") from None
        finally:
            self._waiting.discard(future)
            self._bus._method_return_handlers.pop(message.serial, None)  # noqa: SLF001
        if reply.message_type is MessageType.ERROR:
            raise RemoteError(reply.error_name or ProblemError.name, str(reply.body[0]) if reply.body else "no reason given")
        return reply

    def _send_and_forget(self, message: Message) -> None:
        if not self._closed.is_set():
            self._bus.send(message).add_done_callback(_sent)

    def _receive(self, message: Message) -> bool:
        """Take every message that dbus-next does not need for itself. Never raises."""
        match message.message_type:
            case MessageType.METHOD_CALL:
                self._accept(message)
                return True
            case MessageType.SIGNAL:
                self._hand_out(message)
                return False
        return False

    def _accept(self, message: Message) -> None:
        for descriptor in message.unix_fds:
            os.close(descriptor)
        sender = message.sender or ""
        if self._in_flight[sender] >= PER_CALLER:
            self._refuse(message, LimitsExceededError(f"You have {PER_CALLER} calls waiting already."))
            return
        self._in_flight[sender] += 1
        task = asyncio.create_task(self._answer(message))
        self._answering.add(task)

        def answered(done: asyncio.Task[None]) -> None:
            self._answering.discard(done)
            self._in_flight[sender] -= 1
            if not self._in_flight[sender]:
                del self._in_flight[sender]

        task.add_done_callback(answered)

    async def _answer(self, message: Message) -> None:
        call = Call(
            message.sender or "",
            message.path or "/",
            message.interface or "",
            message.member or "",
            message.signature or "",
            tuple(_from_library(value) for value in message.body),
            bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION),
        )
        try:
            if self._handler is None:
                raise ProblemError("The daemon is starting.")
            self._reply(message, await self._handler(call))
        except (ProblemError, RemoteError) as error:
            self._refuse(message, error)
        except Exception:
            log.exception("%s.%s failed", call.interface, call.member)
            self._refuse(message, ProblemError("An internal error occurred; the journal of gpuhandoffd has the details."))

    def _reply(self, message: Message, reply: Reply) -> None:
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            body = [_to_library(value) for value in reply.body]
            if reply.signature == "h":
                self._reply_descriptor(message, body[0])
            else:
                self._send_and_forget(Message.new_method_return(message, reply.signature, body))

    def _reply_descriptor(self, message: Message, descriptor: int) -> None:
        """Send a descriptor and close ours."""
        sent = self._bus.send(Message.new_method_return(message, "h", [0], unix_fds=[descriptor]))
        sent.add_done_callback(lambda future: _sent(future, descriptor))

    def _refuse(self, message: Message, error: ProblemError | RemoteError) -> None:
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._send_and_forget(Message.new_error(message, error_name(error), error.message))

    def _hand_out(self, message: Message) -> None:
        signal = Signal(
            message.path or "",
            message.interface or "",
            message.member or "",
            message.signature or "",
            tuple(_from_library(value) for value in message.body),
            message.sender or "",
        )
        for entry in list(self._subscriptions):
            match, callback = entry
            if self._wants(match, signal) and any(one is entry for one in self._subscriptions):
                try:
                    callback(signal)
                except Exception:
                    log.exception("a subscriber to %s.%s failed", signal.interface, signal.member)

    def _wants(self, match: Match, signal: Signal) -> bool:
        """Check again what the bus has matched: anybody may send a signal to this connection alone, unmatched."""
        return (
            (match.interface, match.member) == (signal.interface, signal.member)
            and (match.path is None or match.path == signal.path)
            and (match.arg0 is None or (len(signal.body) > 0 and signal.body[0] == match.arg0))
            and (match.sender is None or self._owners.owner(match.sender) == signal.sender)
        )


class _PatientSocket:
    """The writer's socket. dbus-next takes EAGAIN for the end; 0 bytes sent makes it wait for room instead."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, data: memoryview) -> int:
        """Send what fits."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0


def _sent(future: asyncio.Future[None], descriptor: int | None = None) -> None:
    """Close what went along, and look at the result, so that nobody complains that nobody did."""
    if descriptor is not None:
        os.close(descriptor)
    if not future.cancelled():
        future.exception()


def _library_bus(address: str | None, *, descriptors: bool) -> MessageBus:
    try:
        bus = MessageBus(
            bus_address=address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_BUS), negotiate_unix_fd=descriptors
        )
    except OSError as error:
        raise RemoteError(DISCONNECTED, f"The message bus cannot be reached: {error.strerror}.") from error
    if not descriptors:
        bus._writer.sock = _PatientSocket(bus._sock)  # noqa: SLF001
    return bus


async def _open(bus: MessageBus) -> None:
    try:
        await bus.connect()
    except (OSError, AuthError, EOFError) as error:
        raise RemoteError(DISCONNECTED, f"The message bus cannot be reached: {error}.") from error


def _method_call(
    destination: str, path: str, interface: str, member: str, signature: str, body: Body, *, interactive: bool = False
) -> Message:
    return Message(
        destination=destination,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=[_to_library(value) for value in body],
        flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE,
    )


def _rule(match: Match) -> str:
    parts = {"interface": match.interface, "member": match.member, "sender": match.sender, "path": match.path}
    parts["arg0"] = match.arg0
    return ",".join(["type='signal'", *(f"{key}='{value}'" for key, value in parts.items() if value is not None)])


def _to_library(value: Any) -> Any:
    match value:
        case Variant():
            return DBusVariant(value.signature, _to_library(value.value))
        case dict():
            return {key: _to_library(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_to_library(inner) for inner in value]
    return value


def _from_library(value: Any) -> Any:
    match value:
        case DBusVariant():
            return Variant(value.signature, _from_library(value.value))
        case dict():
            return {key: _from_library(inner) for key, inner in value.items()}
        case list():
            return [_from_library(inner) for inner in value]
    return value
