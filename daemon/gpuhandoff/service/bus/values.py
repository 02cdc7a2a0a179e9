"""Values and texts on their way to dbus-next and from it."""

from __future__ import annotations

from typing import Any

from dbus_next import Message, MessageFlag
from dbus_next import Variant as DBusVariant

from gpuhandoff.messages import Body, Variant


def method_call(
    destination: str, path: str, interface: str, member: str, signature: str, body: Body, *, interactive: bool = False
) -> Message:
    """Return a call of a method."""
    return Message(
        destination=destination,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=[to_library(value) for value in body],
        flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE,
    )


def to_library(value: Any) -> Any:
    """Return a value as dbus-next takes it."""
    match value:
        case str():
            return sendable(value)
        case Variant():
            return DBusVariant(value.signature, to_library(value.value))
        case dict():
            return {to_library(key): to_library(inner) for key, inner in value.items()}
        case list() | tuple():
            return [to_library(inner) for inner in value]
    return value


def plain(text: str) -> str:
    """Return `text` without what gives orders to the terminal on which busctl shows it: others chose the names in it."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def sendable(text: str) -> str:
    """Return `text` without what ends a connection to the bus: bytes of other encodings, as in a process's name, and NUL."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def from_library(value: Any) -> Any:
    """Return a value of dbus-next's as the rest of the daemon has it."""
    match value:
        case DBusVariant():
            return Variant(value.signature, from_library(value.value))
        case dict():
            return {key: from_library(inner) for key, inner in value.items()}
        case list():
            return [from_library(inner) for inner in value]
    return value
