"""What an unprivileged caller could do to the daemon by sending much: each test fails without its work-around."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

import pytest
from dbus_next import Message, MessageType

from gpuhandoff.messages import Call, Match, Reply, Signal
from gpuhandoff.service.bus import DBus, answers, library, reader
from tests.support.bus import REPOSITORY, PrivateBus
from tests.support.calls import INTERFACE, LIMITS, a_call, a_call_with_integers, echo, is_alive
from tests.support.stranger import Stranger


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
