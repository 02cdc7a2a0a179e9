"""Calls of somebody who means no good, and a service that answers them."""

from __future__ import annotations

import struct

from dbus_next import Message, MessageFlag

from gpuhandoff.messages import Call, Reply
from gpuhandoff.service.bus import DBus
from tests.support.bus import TEST_NAME

INTERFACE = "org.example.Interface"
LIMITS = "org.freedesktop.DBus.Error.LimitsExceeded"


async def echo(call: Call) -> Reply:
    return Reply(call.signature, call.body)


async def is_alive(service: DBus) -> bool:
    return bool(await service.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId"))


def a_call(
    signature: str = "", body: list[object] | None = None, *, member: str = "Echo", flags: MessageFlag = MessageFlag.NONE
) -> Message:
    return Message(
        destination=TEST_NAME,
        path="/",
        interface=INTERFACE,
        member=member,
        signature=signature,
        body=body or [],
        flags=flags,
    )


def a_call_with_integers(count: int) -> bytes:
    """Made by hand: dbus-next would take its time here, too."""
    message = a_call("ai", [[1]])
    message.serial = 4242
    head = bytearray(message._marshall()[:-8])  # type: ignore[no-untyped-call]
    struct.pack_into("<I", head, 4, 4 + 4 * count)
    return bytes(head) + struct.pack("<I", 4 * count) + b"\1\0\0\0" * count
