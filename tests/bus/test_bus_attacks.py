"""What an unprivileged caller could do to the daemon through dbus-next: each test fails without its work-around."""

from __future__ import annotations

import asyncio
import os

import pytest
from dbus_next import Message, MessageFlag, MessageType

from gpuhandoff.messages import Call, Match, Reply, Signal
from gpuhandoff.service.bus import DBus, connect, library, reader
from tests.support.bus import TEST_NAME, PrivateBus
from tests.support.calls import INTERFACE, LIMITS, a_call, echo, is_alive
from tests.support.stranger import Stranger


async def test_a_message_that_cannot_be_read_ends_nothing(
    bus: PrivateBus, service: DBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bus may let through what dbus-next does not know."""
    service.serve(echo)
    readable = reader.Reader.read_argument

    def choke(self: reader.Reader, type_: object) -> object:
        value = readable(self, type_)  # type: ignore[arg-type]
        if value == "choke":
            raise KeyError(value)
        return value

    monkeypatch.setattr(reader.Reader, "read_argument", choke)
    with Stranger(bus.address) as stranger:
        stranger.send(a_call("s", ["choke"]))
        stranger.send(a_call("s", ["fine"]))
        replies = await asyncio.to_thread(stranger.replies, 2)
    assert [reply.error_name for reply in replies] == [LIMITS, None]


async def test_an_unknown_type_of_message_ends_nothing(bus: PrivateBus, service: DBus) -> None:
    service.serve(echo)
    message = a_call()
    message.serial = 99
    data = bytearray(message._marshall())  # type: ignore[no-untyped-call]
    data[1] = 5
    with Stranger(bus.address) as stranger:
        stranger.socket.sendall(data)
        assert await is_alive(service)


async def test_stray_descriptors_do_not_stay(bus: PrivateBus, service: DBus) -> None:
    """The bus refuses to hand them to a connection that did not ask for any."""
    service.serve(echo)
    before = set(os.listdir("/proc/self/fd"))
    null = os.open("/dev/null", os.O_RDONLY)
    with Stranger(bus.address, descriptors=True) as stranger:
        for _ in range(40):
            stranger.send(a_call("h", [0]), [null])
        replies = await asyncio.to_thread(stranger.replies, 40)
    os.close(null)
    assert all(reply.message_type is MessageType.ERROR for reply in replies)
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("kind", ["call", "dropped", "unwanted", "wanted"])
async def test_stray_descriptors_are_closed_where_some_are_wanted(
    bus: PrivateBus, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    taker = await connect(bus.address, descriptors=True)
    await taker.request_name(TEST_NAME)

    async def nothing(_: Call) -> Reply:
        return Reply()

    taker.serve(nothing)
    message = a_call("h", [0])
    seen: list[Signal] = []
    if kind == "dropped":
        monkeypatch.setattr(library, "UNANSWERED", 0)
        message.flags = MessageFlag.NO_REPLY_EXPECTED
    elif kind != "call":
        message.message_type = MessageType.SIGNAL
    if kind == "wanted":
        await taker.subscribe(Match(INTERFACE, "Echo"), seen.append)
    null = os.open("/dev/null", os.O_RDONLY)
    with Stranger(bus.address, descriptors=True) as stranger:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(40):
            stranger.send(message, [null])
        last = stranger.send(a_call())
        while (await asyncio.to_thread(stranger.receive)).reply_serial != last:
            pass
        assert len(os.listdir("/proc/self/fd")) == before
    assert len(seen) == (40 if kind == "wanted" else 0)
    os.close(null)
    await taker.close()


async def test_a_signal_to_this_connection_alone_is_not_believed(bus: PrivateBus, service: DBus) -> None:
    """Anybody may send one, under any interface; the bus checks match rules of broadcasts only."""
    seen: list[Signal] = []
    dbus = "org.freedesktop.DBus"
    await service.subscribe(Match(dbus, "NameOwnerChanged", sender=dbus), seen.append)
    await service.subscribe(Match(INTERFACE, "Anything"), seen.append)  # so that signals of all senders are read
    with Stranger(bus.address) as stranger:
        seen.clear()
        stranger.send(
            Message(
                message_type=MessageType.SIGNAL,
                destination=service.unique_name,
                path="/org/freedesktop/DBus",
                interface=dbus,
                member="NameOwnerChanged",
                signature="sss",
                body=[":1.0", ":1.0", ""],
            )
        )
        await asyncio.to_thread(stranger.call, dbus, "/", dbus, "GetId")
        assert await is_alive(service)
    assert not [signal for signal in seen if signal.body[0] == ":1.0"]


@pytest.mark.parametrize("member", ["Anything", "Fails"])
async def test_who_expects_no_reply_gets_none(
    bus: PrivateBus, service: DBus, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    """Nothing is sent: a bus that has to drop it writes each into the system's journal."""
    answered: list[str] = []
    sent: list[Message] = []
    send = service._bus.send

    def note(message: Message) -> object:
        sent.append(message)
        return send(message)

    async def handler(call: Call) -> Reply:
        answered.append(call.member)
        if call.member == "Fails":
            raise KeyError(call.member)
        return Reply()

    monkeypatch.setattr(service._bus, "send", note)
    service.serve(handler)
    with Stranger(bus.address) as stranger:
        stranger.send(a_call(member=member, flags=MessageFlag.NO_REPLY_EXPECTED))
        serial = stranger.send(a_call(member="Anything"))
        replies = await asyncio.to_thread(stranger.replies, 1)
    assert [reply.reply_serial for reply in replies] == [serial]
    assert [message.reply_serial for message in sent if message.destination == stranger.name] == [serial]
    assert answered == [member, "Anything"]
