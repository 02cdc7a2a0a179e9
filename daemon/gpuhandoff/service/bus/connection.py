"""One connection to the bus: calls both ways, signals both ways, each with a time limit and an end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import struct
from collections.abc import Callable

from dbus_next import Message, MessageType
from dbus_next.constants import NameFlag, RequestNameReply

from gpuhandoff.errors import ProblemError
from gpuhandoff.messages import (
    DISCONNECTED,
    NO_REPLY,
    Body,
    Handler,
    Match,
    RemoteError,
    Signal,
    Unsubscribe,
)
from gpuhandoff.service.bus.answers import Answers
from gpuhandoff.service.bus.attachments import close_all_of, take
from gpuhandoff.service.bus.library import MendedBus, mended, open_
from gpuhandoff.service.bus.values import from_library, method_call, to_library
from gpuhandoff.service.callers import Callers
from gpuhandoff.service.owners import DBUS, DBUS_PATH
from gpuhandoff.service.subscriptions import Subscriptions

NAME_TAKEN = "org.freedesktop.DBus.Error.NameHasOwner"

log = logging.getLogger(__name__)


async def connect(address: str | None = None, *, descriptors: bool = False) -> DBus:
    """Return a connection to the system bus, or to the bus at `address`; raises RemoteError.

    `descriptors`: the connection can send file descriptors, and then has to close those that strangers send.
    """
    connection = DBus(mended(address, descriptors=descriptors), address)
    await connection.open()
    return connection


class DBus:
    """One connection, a `messages.Bus`."""

    def __init__(self, bus: MendedBus, address: str | None) -> None:
        self._bus = bus
        self._address = address
        self._closed = asyncio.Event()
        self._subscriptions = Subscriptions(self, self._drop_rule)
        self._callers = Callers(self, self._bus.go_on)
        self._answers = Answers(self._callers, self._send)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; raises RemoteError."""
        self._bus.add_message_handler(self._receive)
        self._bus.refuse = self._answers.refuse
        self._bus.may_take = self._callers.have_room
        self._bus.may_signal = self._subscriptions.may_want
        await open_(self._bus)
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
        message = method_call(destination, path, interface, member, signature, body, interactive=interactive)
        return tuple(from_library(value) for value in (await self.send(message, timeout)).body)

    async def call_for_descriptor(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Body = ()
    ) -> int:
        """Call a method that returns one descriptor, on a connection of its own: this one must not accept any."""
        other = await connect(self._address, descriptors=True)
        try:
            reply = await other.send(method_call(destination, path, interface, member, signature, body), 25.0)
            return take(reply)
        finally:
            await other.close()

    async def subscribe(self, match: Match, callback: Callable[[Signal], None]) -> Unsubscribe:
        """Hand every matching signal to `callback`."""
        return await self._subscriptions.add(match, callback)

    def emit(self, signal: Signal) -> None:
        """Send a signal."""
        body = [to_library(value) for value in signal.body]
        try:
            self._send(Message.new_signal(signal.path, signal.interface, signal.member, signal.signature, body))
        except (TypeError, ValueError, struct.error):
            log.exception("the signal %s.%s cannot be sent", signal.interface, signal.member)

    def serve(self, handler: Handler) -> None:
        """Answer calls with `handler`."""
        self._answers.handler = handler

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
        self._bus.release()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RemoteError(DISCONNECTED, "The connection to the message bus is gone."))
        self._answers.stop()

    async def send(self, message: Message, timeout: float) -> Message:
        """Send a method call and return its reply; raises RemoteError."""
        if self._closed.is_set():
            raise RemoteError(DISCONNECTED, "The connection to the message bus is gone.")
        message.serial = self._bus.next_serial()
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[message.serial] = future
        try:
            self._send(message)
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                reply = await future
        except TimeoutError:
            raise RemoteError(NO_REPLY, f"{message.destination} did not answer within {timeout:g} s.") from None
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                close_all_of(future.result())
            raise
        finally:
            del self._waiting[message.serial]
        if reply.message_type is MessageType.ERROR:
            close_all_of(reply)
            raise RemoteError(reply.error_name or ProblemError.name, str(reply.body[0]) if reply.body else "no reason given")
        return reply

    def _send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message, and a descriptor that is closed then."""
        if not self._closed.is_set():
            self._bus.send(message).add_done_callback(lambda sent: _sent(sent, descriptor))
        elif descriptor is not None:
            os.close(descriptor)

    def _receive(self, message: Message) -> bool:
        """Take every message: dbus-next needs none for itself. Never raises."""
        if message.message_type in {MessageType.METHOD_RETURN, MessageType.ERROR}:
            future = self._waiting.get(message.reply_serial or 0)
            if future is not None and not future.done():
                future.set_result(message)
                return True
        close_all_of(message)
        if message.message_type is MessageType.METHOD_CALL:
            self._answers.accept(message)
        elif message.message_type is MessageType.SIGNAL:
            self._hand_out(message)
        # A reply to nobody may be the library's own, from the time of connecting.
        return message.message_type in {MessageType.METHOD_CALL, MessageType.SIGNAL}

    def _hand_out(self, message: Message) -> None:
        signal = Signal(
            message.path or "",
            message.interface or "",
            message.member or "",
            message.signature or "",
            tuple(from_library(value) for value in message.body),
            message.sender or "",
        )
        self._subscriptions.hand_out(signal)

    def _drop_rule(self, rule: str) -> None:
        self._send(method_call(DBUS, DBUS_PATH, DBUS, "RemoveMatch", "s", (rule,)))


def _sent(future: asyncio.Future[None], descriptor: int | None = None) -> None:
    """Close what went along, and look at the result, so that nobody complains that nobody did."""
    if descriptor is not None:
        os.close(descriptor)
    if not future.cancelled():
        future.exception()
