"""One message as it comes, and no more of a stranger's than is reasonable."""

from __future__ import annotations

import io
import struct
from typing import Any

from dbus_next import Message, MessageType
from dbus_next._private.unmarshaller import MarshallerStreamEndError, Unmarshaller
from dbus_next.signature import SignatureTree, SignatureType

VALUES = 5_000
"""Values in one call or signal from outside. One message may have 8 million, on which dbus-next would work for seconds."""
TYPE_COST = 4
"""A part of a type, which dbus-next makes an object of, counts like as many values."""
LARGEST = 4 << 20
"""Bytes of one call or signal from outside, several times what the largest domain's XML needs."""
SIGNATURES = 4000
"""Characters of all types that dbus-next remembers; each takes it some 400 bytes."""

FIXED_HEADER = 16
_CHUNK = 1 << 16
FROM_STRANGERS = {MessageType.METHOD_CALL.value, MessageType.SIGNAL.value}


class Reader(Unmarshaller):
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
            self.read(FIXED_HEADER, prefetch=True)  # type: ignore[no-untyped-call]
            body, _, fields = struct.unpack_from(self._order + "III", self.buf, 4)
            head = FIXED_HEADER + fields + -fields % 8
            if head + body <= LARGEST or self.kind not in FROM_STRANGERS:
                self.read(head + body, prefetch=True)  # type: ignore[no-untyped-call]
            else:
                self._read_and_forget(head, body)
        except MarshallerStreamEndError:
            return False
        return True

    def _read_and_forget(self, head: int, body: int) -> None:
        """Keep the head, if that is not the large part, and nothing else; raises as `read` does."""
        if not self.is_oversized:
            self._kept = head if head <= LARGEST else FIXED_HEADER
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
        fields = bytes(self.buf[FIXED_HEADER : FIXED_HEADER + length])
        start = fields.find(b"\x07\x01s\0")
        if not 0 <= start <= len(fields) - 8:
            return ""
        (size,) = struct.unpack_from(self._order + "I", fields, start + 4)
        return fields[start + 8 : start + 8 + size].decode("ascii", "replace")

    def first_text(self) -> str:
        """Return the first argument as text, which it need not be."""
        (fields,) = struct.unpack_from(self._order + "I", self.buf, 12)
        start = FIXED_HEADER + fields + -fields % 8
        if len(self.buf) < start + 4:
            return ""
        (size,) = struct.unpack_from(self._order + "I", self.buf, start)
        return self.buf[start + 4 : start + 4 + size].decode("utf-8", "replace")

    def read_argument(self, type_: SignatureType) -> Any:
        """Read one value."""
        self._values += 1
        if self._values > VALUES and self.kind in FROM_STRANGERS:
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
        size = FIXED_HEADER + length + -length % 8
        if len(self.buf) < size:
            raise ValueError("its head was not kept")
        head = bytearray(self.buf[:size])
        struct.pack_into(self._order + "I", head, 4, 0)
        message: Message = Unmarshaller(io.BytesIO(head)).unmarshall()  # type: ignore[no-untyped-call]
        return message


def reader_of(message: bytes) -> Reader:
    """Return the reader of a message that is all here."""
    reader = Reader(io.BytesIO(message))  # type: ignore[no-untyped-call]
    reader.is_here()
    return reader


class Signatures(dict[str, SignatureTree]):
    """What dbus-next remembers of types, within bounds."""

    _size = 0

    def __setitem__(self, signature: str, tree: SignatureTree) -> None:
        self._size += len(signature) + 1
        if self._size > SIGNATURES:
            self.clear()
            self._size = len(signature) + 1
        super().__setitem__(signature, tree)


SignatureTree._cache = Signatures()  # noqa: SLF001  (nothing else reaches it)
