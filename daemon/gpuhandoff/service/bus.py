"""The system bus, by dbus-next at message level; nothing else in the daemon imports it.

dbus-next 0.2.3 has no release since 2021 and defects that an unprivileged caller could use. Each work-around has a test in
tests/bus that fails without it:

- A full socket buffer ends the connection (its issue 153): `PatientSocket`.
- Stray descriptors leak (162): the serving connection negotiates none, and those that come are closed.
- Exceptions reach callers as tracebacks: calls never get to its own dispatch.
- Calls never return after a disconnect, nor time out: replies never get to it either.
- It reads as long as there is something to read, and starves the loop: BATCH calls at a time, of all callers in turn.
- It takes 0.3 ms for a message; the bus queues a million of those that need no reply: most are dropped by their header.
- A message that it cannot read ends the connection, and one of many values takes it seconds: VALUES, and skipped.
- It holds a message of 32 MB twice, and the memory stays: what is larger than LARGEST is not kept while it comes.
- It remembers every type that a caller has ever made up: SIGNATURES.
- A bus that hangs up during authentication is asked again for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from queue import Queue
from typing import Any

from dbus_next import Message, MessageFlag, MessageType
from dbus_next import Variant as DBusVariant
from dbus_next._private.unmarshaller import MarshallerStreamEndError, Unmarshaller
from dbus_next.aio import MessageBus
from dbus_next.constants import NameFlag, RequestNameReply
from dbus_next.errors import AuthError
from dbus_next.signature import SignatureTree, SignatureType

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
from gpuhandoff.service.callers import Callers
from gpuhandoff.service.line import Line
from gpuhandoff.service.owners import DBUS, DBUS_PATH
from gpuhandoff.service.socket import PatientSocket
from gpuhandoff.service.subscriptions import Subscriptions

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
PER_CALLER = 64
"""Calls of one caller that are answered at the same time; more are LimitsExceeded."""
BATCH = 32
"""Calls that are taken before others get the loop."""
OUTBOX = 100
"""Messages that wait to be sent while further calls are taken."""
READ_AHEAD = 256
"""Messages of which no more than the head is looked at, in the same time."""
VALUES = 5_000
"""Values in one call or signal from outside. One message may have 8 million, on which dbus-next would work for seconds."""
TYPE_COST = 4
"""A part of a type, which dbus-next makes an object of, counts like as many values."""
LARGEST = 4 << 20
"""Bytes of one call or signal from outside, several times what the largest domain's XML needs."""
SIGNATURES = 4000
"""Characters of all types that dbus-next remembers; each takes it some 400 bytes."""
UNANSWERED = 100
"""Calls that expect no reply, by all callers together, in a second. Nothing else bounds them; more are dropped."""
NAME_TAKEN = "org.freedesktop.DBus.Error.NameHasOwner"

log = logging.getLogger(__name__)


async def connect(address: str | None = None, *, descriptors: bool = False) -> DBus:
    """Return a connection to the system bus, or to the bus at `address`; raises RemoteError.

    `descriptors`: the connection can send file descriptors, and then has to close those that strangers send.
    """
    connection = DBus(_connection(address, descriptors=descriptors), address)
    await connection.open()
    return connection


class DBus:
    """One connection, a `messages.Bus`."""

    def __init__(self, bus: _Connection, address: str | None) -> None:
        self._bus = bus
        self._address = address
        self._closed = asyncio.Event()
        self._handler: Handler | None = None
        self._subscriptions = Subscriptions(self, self._drop_rule)
        self._callers = Callers(self, self._bus.go_on)
        self._answering: set[asyncio.Task[None]] = set()
        self._in_flight: Counter[str] = Counter()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; raises RemoteError."""
        self._bus.add_message_handler(self._receive)
        self._bus.refuse = self._refuse
        self._bus.may_take = self._callers.have_room
        self._bus.may_signal = self._subscriptions.may_want
        await _open(self._bus)
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
            return _take_descriptor(reply)
        finally:
            await other.close()

    async def subscribe(self, match: Match, callback: Callable[[Signal], None]) -> Unsubscribe:
        """Hand every matching signal to `callback`."""
        return await self._subscriptions.add(match, callback)

    def emit(self, signal: Signal) -> None:
        """Send a signal."""
        body = [_to_library(value) for value in signal.body]
        try:
            self._send_and_forget(Message.new_signal(signal.path, signal.interface, signal.member, signal.signature, body))
        except (TypeError, ValueError, struct.error):
            log.exception("the signal %s.%s cannot be sent", signal.interface, signal.member)

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
        self._bus.release()
        for future in self._waiting.values():
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
        self._waiting[message.serial] = future
        try:
            self._send_and_forget(message)
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                reply = await future
        except TimeoutError:
            raise RemoteError(NO_REPLY, f"{message.destination} did not answer within {timeout:g} s.") from None
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                _close_descriptors(future.result())
            raise
        finally:
            del self._waiting[message.serial]
        if reply.message_type is MessageType.ERROR:
            _close_descriptors(reply)
            raise RemoteError(reply.error_name or ProblemError.name, str(reply.body[0]) if reply.body else "no reason given")
        return reply

    def _send_and_forget(self, message: Message) -> None:
        if not self._closed.is_set():
            self._bus.send(message).add_done_callback(_sent)

    def _receive(self, message: Message) -> bool:
        """Take every message: dbus-next needs none for itself. Never raises."""
        if message.message_type in {MessageType.METHOD_RETURN, MessageType.ERROR}:
            future = self._waiting.get(message.reply_serial or 0)
            if future is not None and not future.done():
                future.set_result(message)
                return True
        _close_descriptors(message)
        if message.message_type is MessageType.METHOD_CALL:
            self._accept(message)
        elif message.message_type is MessageType.SIGNAL:
            self._hand_out(message)
        # A reply to nobody may be the library's own, from the time of connecting.
        return message.message_type in {MessageType.METHOD_CALL, MessageType.SIGNAL}

    def _accept(self, message: Message) -> None:
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
            leave = await self._callers.enter(call.sender)
            if leave is None:
                return  # nobody is left to be answered
            try:
                self._reply(message, await self._handler(call))
            finally:
                leave()
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
            self._send_and_forget(Message.new_error(message, error_name(error), _plain(error.message)))

    def _hand_out(self, message: Message) -> None:
        signal = Signal(
            message.path or "",
            message.interface or "",
            message.member or "",
            message.signature or "",
            tuple(_from_library(value) for value in message.body),
            message.sender or "",
        )
        self._subscriptions.hand_out(signal)

    def _drop_rule(self, rule: str) -> None:
        self._send_and_forget(_method_call(DBUS, DBUS_PATH, DBUS, "RemoveMatch", "s", (rule,)))


class _Connection(MessageBus):
    """dbus-next's connection, mended from inside."""

    def __init__(self, address: str, *, descriptors: bool) -> None:
        super().__init__(bus_address=address, negotiate_unix_fd=descriptors)
        self.refuse: Callable[[Message, ProblemError], None] = lambda _, __: None
        self.may_signal: Callable[[str, str], bool] = lambda _, __: True
        self.may_take: Callable[[], bool] = lambda: True
        self._line: Line = Line()
        self._reading_on = False
        self._second = 0.0
        self._unanswered = 0
        self._writer.sock = PatientSocket(self._sock)
        self._outbox = _Outbox(lambda: self._loop.call_soon(self.go_on))
        self._writer.messages = self._outbox  # type: ignore[assignment]

    def release(self) -> None:
        """Close the socket of a connection that is gone; dbus-next leaves that to the garbage collector."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._sock.close()

    def _create_unmarshaller(self) -> _Reader:
        return _Reader(self._stream, self._sock if self._negotiate_unix_fd else None)  # type: ignore[no-untyped-call]

    def _message_reader(self) -> None:
        """Read some messages when there are any, and go on after everybody else had a turn."""
        if not self._reading_on:
            self._reading_on = self._read_some() | self._serve_some()
            if self._reading_on:
                self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._reading_on = False
        self._message_reader()

    def go_on(self) -> None:
        """Take calls again after `may_take` said no."""
        if self._line:
            self._message_reader()

    def _read_some(self) -> bool:
        """Read what has come, a little at a time; tell whether there may be more. Calls are put in line, unread as yet."""
        for _ in range(READ_AHEAD):
            if self._disconnected:
                return False
            reader = self._unmarshaller
            try:
                if not reader.is_here():
                    return False
            except Exception as error:  # noqa: BLE001  (the end of the stream and of the socket, whatever they raise)
                self._finalize(error)  # type: ignore[no-untyped-call]
                return False
            if reader.is_oversized:
                self._skip(reader, ValueError("too large"))
            elif not self._wants(reader):
                _close(reader.unix_fds)
            elif reader.kind == MessageType.METHOD_CALL.value:
                _close(reader.unix_fds)
                self._line.add(reader.sender(), bytes(reader.buf))
                if self._line.is_full:  # and reading has to go on: what is waited for comes the same way
                    self._skip(_reader_of(self._line.shed()), ValueError("too many wait"))
            else:
                self._take(reader)
            self._unmarshaller = self._create_unmarshaller()
        return True

    def _serve_some(self) -> bool:
        """Take at most BATCH calls, one of each caller in turn; tell whether more wait."""
        for _ in range(BATCH):
            if self._disconnected or not self._line or not self.may_take() or self._outbox.is_full:
                return False
            self._take(_reader_of(self._line.pop()))
        return True

    def _take(self, reader: _Reader) -> None:
        try:
            reader.unmarshall()  # type: ignore[no-untyped-call]
            self._on_message(reader.message)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  (whatever dbus-next makes of it: the next message is not affected)
            self._skip(reader, error)

    def _wants(self, reader: _Reader) -> bool:
        """Tell by the header alone whether a message is worth reading."""
        if reader.kind == MessageType.SIGNAL.value:
            return self.may_signal(reader.sender(), reader.first_text())
        if reader.kind != MessageType.METHOD_CALL.value or not reader.flags & MessageFlag.NO_REPLY_EXPECTED:
            return True
        now = self._loop.time()
        if now - self._second >= 1:
            self._second, self._unanswered = now, 0
        self._unanswered += 1
        return self._unanswered <= UNANSWERED

    def _skip(self, reader: _Reader, error: Exception) -> None:
        log.debug("a message was not read: %s", error)
        _close(reader.unix_fds)
        try:
            head = reader.head()
        except Exception as worse:  # noqa: BLE001  (then there is nobody to answer)
            log.debug("nor was its head: %s", worse)
            return
        if head.message_type is MessageType.METHOD_CALL:
            sentence = f"The arguments have more than {VALUES} values or {LARGEST >> 20} MiB, or too many calls wait."
            self.refuse(head, LimitsExceededError(sentence))

    async def _auth_readline(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            received = await self._loop.sock_recv(self._sock, 1)
            if not received:
                raise EOFError("it hung up during authentication")
            line += received
        return line[:-2].decode("ascii", "replace")


class _Outbox(Queue[Any]):
    """What waits to be sent. While it is full nothing is taken that makes more, so that it does not fill the memory."""

    def __init__(self, room: Callable[[], object]) -> None:
        super().__init__()
        self._room = room

    @property
    def is_full(self) -> bool:
        """Whether the bus has to read first."""
        return self.qsize() >= OUTBOX

    def get_nowait(self) -> Any:
        """Return the next, and tell when there is room again."""
        found = super().get_nowait()
        if self.qsize() == OUTBOX // 2:
            self._room()
        return found


class _Reader(Unmarshaller):
    """Reads one message, but no more of a stranger's than is reasonable."""

    is_oversized = False
    """Whether only its head was kept."""
    _values = 0
    _kept = 0
    _left = 0

    @property
    def _order(self) -> str:
        return "<" if self.buf[:1] == b"l" else ">"

    def is_here(self) -> bool:
        """Have all that has come of the message, and tell whether it is all of it. Raises at the end of the stream."""
        self.offset = 0
        try:
            self.read(_FIXED_HEADER, prefetch=True)  # type: ignore[no-untyped-call]
            body, _, fields = struct.unpack_from(self._order + "III", self.buf, 4)
            head = _FIXED_HEADER + fields + -fields % 8
            if head + body <= LARGEST or self.kind not in _FROM_STRANGERS:
                self.read(head + body, prefetch=True)  # type: ignore[no-untyped-call]
            else:
                self._read_and_forget(head, body)
        except MarshallerStreamEndError:
            return False
        return True

    def _read_and_forget(self, head: int, body: int) -> None:
        """Keep the head, if that is not the large part, and nothing else; raises as `read` does."""
        if not self.is_oversized:
            self._kept = head if head <= LARGEST else _FIXED_HEADER
            self._left = head + body - self._kept
            self.is_oversized = True
        if len(self.buf) < self._kept:
            self.read(self._kept, prefetch=True)  # type: ignore[no-untyped-call]
        while self._left > 0:
            try:
                self.read(self._kept + min(self._left, _CHUNK), prefetch=True)  # type: ignore[no-untyped-call]
            finally:
                self._left -= len(self.buf) - self._kept
                del self.buf[self._kept :]

    @property
    def kind(self) -> int:
        """The message's type."""
        return int(self.buf[1])

    @property
    def flags(self) -> int:
        """The message's flags."""
        return int(self.buf[2])

    def sender(self) -> str:
        """Return who sent it: header field 7. No other field can contain these bytes: they hold names and paths."""
        (length,) = struct.unpack_from(self._order + "I", self.buf, 12)
        fields = bytes(self.buf[_FIXED_HEADER : _FIXED_HEADER + length])
        start = fields.find(b"\x07\x01s\0")
        if not 0 <= start <= len(fields) - 8:
            return ""
        (size,) = struct.unpack_from(self._order + "I", fields, start + 4)
        return fields[start + 8 : start + 8 + size].decode("ascii", "replace")

    def first_text(self) -> str:
        """Return the first argument as text, which it need not be."""
        (fields,) = struct.unpack_from(self._order + "I", self.buf, 12)
        start = _FIXED_HEADER + fields + -fields % 8
        if len(self.buf) < start + 4:
            return ""
        (size,) = struct.unpack_from(self._order + "I", self.buf, start)
        return self.buf[start + 4 : start + 4 + size].decode("utf-8", "replace")

    def read_argument(self, type_: SignatureType) -> Any:
        """Read one value."""
        self._values += 1
        if self._values > VALUES and self.kind in _FROM_STRANGERS:
            raise ValueError(f"more than {VALUES} values")
        return super().read_argument(type_)  # type: ignore[no-untyped-call]

    def read_signature(self, type_: SignatureType | None = None) -> str:
        """Read a type, which costs what it is made of: a variant's may have 255 parts and no value at all."""
        signature: str = super().read_signature(type_)  # type: ignore[no-untyped-call]
        self._values += TYPE_COST * len(signature)
        return signature

    def head(self) -> Message:
        """Return the message without its body; raises when not even that can be read."""
        (length,) = struct.unpack_from(self._order + "I", self.buf, 12)
        size = _FIXED_HEADER + length + -length % 8
        if len(self.buf) < size:
            raise ValueError("its head was not kept")
        head = bytearray(self.buf[:size])
        struct.pack_into(self._order + "I", head, 4, 0)
        message: Message = Unmarshaller(io.BytesIO(head)).unmarshall()  # type: ignore[no-untyped-call]
        return message


class _Signatures(dict[str, SignatureTree]):
    """What dbus-next remembers of types, within bounds."""

    _size = 0

    def __setitem__(self, signature: str, tree: SignatureTree) -> None:
        self._size += len(signature) + 1
        if self._size > SIGNATURES:
            self.clear()
            self._size = len(signature) + 1
        super().__setitem__(signature, tree)


SignatureTree._cache = _Signatures()  # noqa: SLF001  (nothing else reaches it)


def _reader_of(message: bytes) -> _Reader:
    reader = _Reader(io.BytesIO(message))  # type: ignore[no-untyped-call]
    reader.is_here()
    return reader


_FIXED_HEADER = 16
_CHUNK = 1 << 16
_FROM_STRANGERS = {MessageType.METHOD_CALL.value, MessageType.SIGNAL.value}


def _sent(future: asyncio.Future[None], descriptor: int | None = None) -> None:
    """Close what went along, and look at the result, so that nobody complains that nobody did."""
    if descriptor is not None:
        os.close(descriptor)
    if not future.cancelled():
        future.exception()


def _take_descriptor(reply: Message) -> int:
    """Return the only descriptor of a reply; raises RemoteError."""
    index = reply.body[0] if len(reply.body) == 1 and reply.signature == "h" else len(reply.unix_fds)
    if index >= len(reply.unix_fds):
        _close_descriptors(reply)
        raise RemoteError(ProblemError.name, "The reply has no file descriptor.")
    descriptor = int(reply.unix_fds.pop(index))
    _close_descriptors(reply)
    os.set_inheritable(descriptor, False)
    return descriptor


def _close_descriptors(message: Message) -> None:
    _close(message.unix_fds)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _connection(address: str | None, *, descriptors: bool) -> _Connection:
    try:
        return _Connection(address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_BUS), descriptors=descriptors)
    except (OSError, ValueError) as error:
        raise RemoteError(DISCONNECTED, f"The message bus cannot be reached: {error}.") from error


async def _open(bus: _Connection) -> None:
    try:
        async with asyncio.timeout(25):
            await bus.connect()
    except (OSError, AuthError, EOFError, ValueError) as error:  # TimeoutError is an OSError
        bus.release()
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


def _to_library(value: Any) -> Any:
    match value:
        case str():
            return _sendable(value)
        case Variant():
            return DBusVariant(value.signature, _to_library(value.value))
        case dict():
            return {_to_library(key): _to_library(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_to_library(inner) for inner in value]
    return value


def _plain(text: str) -> str:
    """Return `text` without what gives orders to the terminal on which busctl shows it: others chose the names in it."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _sendable(text: str) -> str:
    """Return `text` without what ends a connection to the bus: bytes of other encodings, as in a process's name, and NUL."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def _from_library(value: Any) -> Any:
    match value:
        case DBusVariant():
            return Variant(value.signature, _from_library(value.value))
        case dict():
            return {key: _from_library(inner) for key, inner in value.items()}
        case list():
            return [_from_library(inner) for inner in value]
    return value
