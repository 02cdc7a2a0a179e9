"""What an unprivileged caller could do to the daemon through dbus-next: each test fails without its work-around."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections import Counter

import pytest
from dbus_next import Message, MessageFlag, MessageType

from gpuhandoff.messages import Call, Match, Reply, Signal
from gpuhandoff.service.bus import DBus, answers, connect, library, reader
from tests.support.bus import REPOSITORY, TEST_NAME, PrivateBus
from tests.support.stranger import Stranger

INTERFACE = "org.example.Interface"
LIMITS = "org.freedesktop.DBus.Error.LimitsExceeded"


async def echo(call: Call) -> Reply:
    return Reply(call.signature, call.body)


async def is_alive(service: DBus) -> bool:
    return bool(await service.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId"))


async def send_burst(service: DBus, client: DBus, count: int, size: int) -> int:
    """Send signals in one turn of the loop; return how many arrive."""
    seen: list[Signal] = []
    complete = asyncio.get_running_loop().create_future()

    def count_in(signal: Signal) -> None:
        seen.append(signal)
        if len(seen) == count:
            complete.set_result(None)

    await client.subscribe(Match(INTERFACE, "Burst"), count_in)
    for _ in range(count):
        service.emit(Signal("/", INTERFACE, "Burst", "s", ("x" * size,)))
    closed = asyncio.create_task(service.wait_closed())
    await asyncio.wait({closed, complete}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    closed.cancel()
    return len(seen)


@pytest.mark.parametrize(("count", "size"), [(2000, 32), (20, 20_000), (4, 2_000_000)])
async def test_a_burst_of_signals_is_sent(service: DBus, client: DBus, count: int, size: int) -> None:
    assert await send_burst(service, client, count, size) == count


async def test_the_burst_needs_the_work_around(service: DBus, client: DBus) -> None:
    """Once dbus-next survives this by itself, the patient socket can go."""
    service._bus._writer.sock = service._bus._sock
    assert await send_burst(service, client, 2000, 200) < 2000
    await service.wait_closed()


async def test_callers_cannot_fill_the_socket_while_the_loop_is_busy(bus: PrivateBus, service: DBus) -> None:
    service.serve(echo)
    strangers = [Stranger(bus.address) for _ in range(12)]
    for stranger in strangers:
        for _ in range(120):
            stranger.send(a_call("s", ["x" * 200]))
    time.sleep(1)  # noqa: ASYNC251  (the point)
    for stranger in strangers:
        replies = await asyncio.to_thread(stranger.replies, 120)
        answered = sum(reply.message_type is MessageType.METHOD_RETURN for reply in replies)
        refused = sum(reply.error_name == LIMITS for reply in replies)
        assert answered + refused == 120
        assert answered >= answers.PER_CALLER
        stranger.close()
    assert await is_alive(service)


@pytest.mark.parametrize("kind", ["METHOD_CALL", "SIGNAL"])
async def test_what_needs_no_reply_is_hardly_read(
    bus: PrivateBus, service: DBus, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nothing in the bus limits these, and dbus-next takes its time with each: 3 s of them kept it busy for 26 s."""
    service.serve(echo)
    read = 0
    unmarshall = reader.Reader.unmarshall

    def count(self: reader.Reader) -> object:
        nonlocal read
        read += 1
        return unmarshall(self)  # type: ignore[no-untyped-call]

    began = time.monotonic()
    monkeypatch.setattr(reader.Reader, "unmarshall", count)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", POUR, bus.address, kind, cwd=REPOSITORY)
    assert await process.wait() == 0
    assert await is_alive(service)
    assert read <= library.UNANSWERED * (time.monotonic() - began + 1) + 10


POUR = """
import sys
from dbus_next import Message, MessageFlag, MessageType
from tests.support.stranger import Stranger
message = Message("org.example.Service", "/", "org.example.Interface", "Echo", serial=5,
                  message_type=MessageType[sys.argv[2]], flags=MessageFlag.NO_REPLY_EXPECTED)
with Stranger(sys.argv[1]) as stranger:
    stranger.socket.settimeout(60)
    stranger.socket.sendall(bytes(message._marshall()) * 10_000)
    stranger.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
"""


async def test_others_have_their_turn_while_much_is_read(bus: PrivateBus, service: DBus) -> None:
    """dbus-next reads as long as there is something to read."""
    turn = 0
    handled: Counter[int] = Counter()

    async def note(_: Call) -> Reply:
        handled[turn] += 1
        return Reply()

    service.serve(note)
    strangers = [Stranger(bus.address) for _ in range(4)]
    for stranger in strangers:  # whose user is known then, for which others wait together
        stranger.send(a_call())
        await asyncio.to_thread(stranger.replies, 1)
    handled.clear()
    for stranger in strangers:
        for _ in range(60):
            stranger.send(a_call())
        stranger.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
    until = time.monotonic() + 10
    while handled.total() < 240 and time.monotonic() < until:
        turn += 1
        await asyncio.sleep(0)
    for stranger in strangers:
        stranger.close()
    assert handled.total() == 240
    assert max(handled.values()) <= library.BATCH


async def test_one_caller_cannot_have_all_the_attention(bus: PrivateBus, service: DBus) -> None:
    release = asyncio.Event()

    async def wait(_: Call) -> Reply:
        await release.wait()
        return Reply()

    service.serve(wait)
    with Stranger(bus.address) as greedy, Stranger(bus.address) as modest:
        for _ in range(answers.PER_CALLER + 10):
            greedy.send(a_call())
        refused = await asyncio.to_thread(greedy.replies, 10)
        assert {reply.error_name for reply in refused} == {LIMITS}
        modest.send(a_call())
        release.set()
        assert [one.error_name for one in await asyncio.to_thread(modest.replies, 1)] == [None]
        await asyncio.to_thread(greedy.replies, answers.PER_CALLER)
        greedy.send(a_call())
        assert [one.error_name for one in await asyncio.to_thread(greedy.replies, 1)] == [None]


async def test_a_message_of_millions_of_values_is_refused_unread(bus: PrivateBus, service: DBus) -> None:
    service.serve(echo)
    with Stranger(bus.address) as stranger:
        began = time.monotonic()
        stranger.send(a_call("ai", [list(range(reader.VALUES // 2))]))
        (reply,) = await asyncio.to_thread(stranger.replies, 1)
        assert reply.message_type is MessageType.METHOD_RETURN

        def send_millions() -> Message:
            stranger.socket.sendall(a_call_with_integers(2_000_000))
            return stranger.replies(1)[0]

        reply = await asyncio.to_thread(send_millions)
        assert reply.error_name == LIMITS
        assert time.monotonic() - began < 5
        stranger.send(a_call("s", ["still there"]))
        (reply,) = await asyncio.to_thread(stranger.replies, 1)
        assert reply.body == ["still there"]


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
