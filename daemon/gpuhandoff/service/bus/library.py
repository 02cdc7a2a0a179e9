"""dbus-next's connection, mended from inside: it reads a little at a time, of all callers in turn, and not everything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from queue import Queue
from typing import Any

from dbus_next import Message, MessageFlag, MessageType
from dbus_next.aio import MessageBus
from dbus_next.errors import AuthError

from gpuhandoff.errors import LimitsExceededError, ProblemError
from gpuhandoff.messages import DISCONNECTED, RemoteError
from gpuhandoff.service.bus.attachments import close
from gpuhandoff.service.bus.reader import LARGEST, VALUES, Reader, reader_of
from gpuhandoff.service.line import Line
from gpuhandoff.service.socket import PatientSocket

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
BATCH = 32
"""Calls that are taken before others get the loop."""
OUTBOX = 100
"""Messages that wait to be sent while further calls are taken."""
READ_AHEAD = 256
"""Messages of which no more than the head is looked at, in the same time."""
UNANSWERED = 100
"""Calls that expect no reply, by all callers together, in a second. Nothing else bounds them; more are dropped."""

log = logging.getLogger(__name__)


class MendedBus(MessageBus):
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
        self._outbox = Outbox(lambda: self._loop.call_soon(self.go_on))
        self._writer.messages = self._outbox  # type: ignore[assignment]

    def release(self) -> None:
        """Close the socket of a connection that is gone; dbus-next leaves that to the garbage collector."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._sock.close()

    def _create_unmarshaller(self) -> Reader:
        return Reader(self._stream, self._sock if self._negotiate_unix_fd else None)  # type: ignore[no-untyped-call]

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
                close(reader.unix_fds)
            elif reader.kind == MessageType.METHOD_CALL.value:
                close(reader.unix_fds)
                self._line.add(reader.sender(), bytes(reader.buf))
                if self._line.is_full:  # and reading has to go on: what is waited for comes the same way
                    self._skip(reader_of(self._line.shed()), ValueError("too many wait"))
            else:
                self._take(reader)
            self._unmarshaller = self._create_unmarshaller()
        return True

    def _serve_some(self) -> bool:
        """Take at most BATCH calls, one of each caller in turn; tell whether more wait."""
        for _ in range(BATCH):
            if self._disconnected or not self._line or not self.may_take() or self._outbox.is_full:
                return False
            self._take(reader_of(self._line.pop()))
        return True

    def _take(self, reader: Reader) -> None:
        try:
            reader.unmarshall()  # type: ignore[no-untyped-call]
            self._on_message(reader.message)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  (whatever dbus-next makes of it: the next message is not affected)
            self._skip(reader, error)

    def _wants(self, reader: Reader) -> bool:
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

    def _skip(self, reader: Reader, error: Exception) -> None:
        log.debug("a message was not read: %s", error)
        close(reader.unix_fds)
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


class Outbox(Queue[Any]):
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


def mended(address: str | None, *, descriptors: bool) -> MendedBus:
    """Return a connection that is not open yet; raises RemoteError."""
    try:
        return MendedBus(address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_BUS), descriptors=descriptors)
    except (OSError, ValueError) as error:
        raise RemoteError(DISCONNECTED, f"The message bus cannot be reached: {error}.") from error


async def open_(bus: MendedBus) -> None:
    """Connect and say hello; raises RemoteError."""
    try:
        async with asyncio.timeout(25):
            await bus.connect()
    except (OSError, AuthError, EOFError, ValueError) as error:  # TimeoutError is an OSError
        bus.release()
        raise RemoteError(DISCONNECTED, f"The message bus cannot be reached: {error}.") from error
