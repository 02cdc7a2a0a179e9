"""What one user can have of the daemon, whatever they send: each test fails without its limit."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
from dbus_next import Message, Variant
from dbus_next.signature import SignatureTree

from gpuhandoff.authority.gate import Gate
from gpuhandoff.authority.questions import AT_ONCE, PROMPTS_PER_USER
from gpuhandoff.errors import LimitsExceededError
from gpuhandoff.messages import Call, Reply
from gpuhandoff.names import ACTION_HANDOFF, ACTION_STATUS
from gpuhandoff.service import callers, line
from gpuhandoff.service.bus import DBus, connect, library, reader
from gpuhandoff.service.bus.library import MendedBus
from gpuhandoff.service.callers import PER_USER
from tests.support.bus import PrivateBus
from tests.support.calls import LIMITS, a_call, echo, is_alive
from tests.support.polkit import FakePolkit
from tests.support.stranger import Stranger

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users")
OTHER = 5
EACH = 60


@pytest_asyncio.fixture
async def polkit(bus: PrivateBus) -> AsyncIterator[FakePolkit]:
    connection = await connect(bus.address)
    fake = FakePolkit()
    await fake.attach(connection)
    yield fake
    await connection.close()


async def test_types_that_callers_make_up_are_not_remembered_for_ever(bus: PrivateBus, service: DBus) -> None:
    """dbus-next remembers each with an object for every part of it: an hour of these had been all memory."""
    service.serve(echo)
    with Stranger(bus.address) as stranger:
        for number in range(300):
            types = "".join("ybnqiuxtds"[int(digit)] for digit in f"{number:03}") + "y" * 90
            stranger.send(a_call("v", [Variant(f"a({types})", [])]))
            await asyncio.to_thread(stranger.replies, 1)
    remembered = sum(len(one) for one in SignatureTree._cache)
    assert remembered <= reader.SIGNATURES


async def test_types_cost_what_they_are_made_of(bus: PrivateBus, service: DBus) -> None:
    """5 MB of empty lists of large structures would be 2 GB of dbus-next's objects."""
    service.serve(echo)
    strange = [Variant(f"a({'y' * length})", []) for length in range(200, 240)]
    with Stranger(bus.address) as stranger:
        stranger.send(a_call("av", [strange]))
        (reply,) = await asyncio.to_thread(stranger.replies, 1)
        assert reply.error_name == LIMITS
        stranger.send(a_call("av", [strange[:3]]))
        (reply,) = await asyncio.to_thread(stranger.replies, 1)
        assert not reply.error_name


async def test_what_is_too_large_is_not_even_kept(bus: PrivateBus, service: DBus, monkeypatch: pytest.MonkeyPatch) -> None:
    service.serve(echo)
    largest = 0
    is_here = reader.Reader.is_here

    def watch(self: reader.Reader) -> bool:
        nonlocal largest
        try:
            return is_here(self)
        finally:
            largest = max(largest, len(self.buf))

    monkeypatch.setattr(reader.Reader, "is_here", watch)
    with Stranger(bus.address) as stranger:
        for size in (reader.LARGEST, 20 << 20):
            (reply,) = await asyncio.to_thread(_send, stranger, a_call("ay", [bytes(size)]))
            assert reply.error_name == LIMITS
        (reply,) = await asyncio.to_thread(_send, stranger, a_call("s", ["x" * 1_000_000]))
        assert not reply.error_name
    assert largest < reader.LARGEST
    assert await is_alive(service)


async def test_a_path_that_is_too_large_gets_no_answer_and_ends_nothing(bus: PrivateBus, service: DBus) -> None:
    service.serve(echo)
    message = a_call("s", ["x"])
    message.path = "/" + "x" * (reader.LARGEST + 100)
    with Stranger(bus.address) as stranger:
        await asyncio.to_thread(stranger.send, message)
        (reply,) = await asyncio.to_thread(_send, stranger, a_call("s", ["fine"]))
        assert reply.body == ["fine"]


@needs_root
async def test_one_user_has_no_more_with_more_connections(bus: PrivateBus, service: DBus) -> None:
    release = asyncio.Event()

    async def wait(call: Call) -> Reply:
        if call.member != "Quick":
            await release.wait()
        return Reply()

    service.serve(wait)
    with ExitStack() as stack:
        many = [stack.enter_context(Stranger(bus.address)) for _ in range(6)]
        sent = 60
        for stranger in many:
            for _ in range(sent):
                stranger.send(a_call())
        other = stack.enter_context(Stranger(bus.address, uid=OTHER))
        root = stack.enter_context(Stranger(bus.address, uid=0))
        for one in (other, root):
            (reply,) = await asyncio.to_thread(_send, one, a_call(member="Quick"))
            assert not reply.error_name
        release.set()
        told = [reply.error_name or "" for stranger in many for reply in await asyncio.to_thread(stranger.replies, sent)]
        assert {*told} == {"", LIMITS}
        assert told.count("") == PER_USER


@needs_root
async def test_prompts_that_stay_open_keep_nobody_else_out(bus: PrivateBus, service: DBus, polkit: FakePolkit) -> None:
    """With an agent of one's own they stay open for ever, and the bus lets us wait for 128 replies in all."""
    polkit.answer = "prompt"
    gate = Gate(service)
    with ExitStack() as stack:
        many = [stack.enter_context(Stranger(bus.address)) for _ in range(3)]
        asking = [
            asyncio.create_task(gate.allow(one.name, [ACTION_HANDOFF], {}, interactive=True))
            for one in many
            for _ in range(50)
        ]
        done: set[asyncio.Task[None]] = set()
        prompts = {*asking}
        async with asyncio.timeout(60):
            while len(prompts) > PROMPTS_PER_USER:
                ended, prompts = await asyncio.wait(prompts, return_when=asyncio.FIRST_COMPLETED)
                done |= ended
        _, prompts = await asyncio.wait(prompts, timeout=1)
        assert len(prompts) == PROMPTS_PER_USER
        assert all(isinstance(one.exception(), LimitsExceededError) for one in done)
        polkit.answer = "yes"
        with Stranger(bus.address, uid=OTHER) as honest:
            await gate.allow(honest.name, [ACTION_STATUS], {}, interactive=True)
        for one in prompts:
            one.cancel()
        await asyncio.gather(*prompts, return_exceptions=True)


async def test_more_questions_than_the_bus_lets_us_wait_for_are_asked_one_after_the_other(
    bus: PrivateBus, service: DBus, polkit: FakePolkit
) -> None:
    polkit.answer = "slow"
    gate = Gate(service)
    with Stranger(bus.address) as one:
        asking = [gate.allow(one.name, [ACTION_STATUS], {}, interactive=False) for _ in range(300)]
        await asyncio.gather(*asking)
    assert polkit.most_waiting <= AT_ONCE


def _send(stranger: Stranger, message: Message) -> list[Message]:
    stranger.send(message)
    return stranger.replies(1)


async def test_when_too_many_wait_those_of_the_busiest_are_refused(
    bus: PrivateBus, service: DBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading goes on all the while: the answers to our own questions come the same way."""
    monkeypatch.setattr(line, "MOST", 50)
    service.serve(echo)
    with Stranger(bus.address) as busy, Stranger(bus.address) as modest:
        for _ in range(120):
            busy.send(a_call())
        modest.send(a_call())
        busy.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
        (reply,) = await asyncio.to_thread(modest.replies, 1)
        assert not reply.error_name
        told = {one.error_name for one in await asyncio.to_thread(busy.replies, 119)}
        assert told == {None, LIMITS}


async def test_callers_take_turns(bus: PrivateBus, service: DBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has sent a hundred calls before does not keep the next one waiting for them all."""
    monkeypatch.setattr(library, "BATCH", 1)
    order: list[str] = []

    async def note(call: Call) -> Reply:
        order.append(call.sender)
        return Reply()

    service.serve(note)
    with Stranger(bus.address) as busy, Stranger(bus.address) as modest:
        for one in (busy, modest):
            await asyncio.to_thread(_send, one, a_call())
        for _ in range(50):
            busy.send(a_call())
        modest.send(a_call())
        modest.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
        await asyncio.to_thread(busy.replies, 50)
    assert order[2:].index(modest.name) < 5


async def test_callers_that_leave_at_once_are_not_gathered(
    bus: PrivateBus, service: DBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "AT_ONCE", 20)
    handled: list[Call] = []
    most = 0
    accept = service._answers.accept

    async def note(call: Call) -> Reply:
        handled.append(call)
        return Reply()

    def watch(message: Message) -> None:
        nonlocal most
        accept(message)
        most = max(most, len(service._answers._answering))

    service._answers.accept = watch  # type: ignore[method-assign]
    service.serve(note)
    for _ in range(200):
        with Stranger(bus.address) as hasty:
            hasty.send(a_call())
    for _ in range(30):
        assert await is_alive(service)
    assert not service._bus._line
    assert 0 < most < 100
    assert not handled


class Deaf:
    """The socket to a bus that does not read until it is told to."""

    hears = False

    def __init__(self, bus: MendedBus) -> None:
        self._socket = bus._writer.sock
        bus._writer.sock = self

    def send(self, data: memoryview) -> int:
        return self._socket.send(data) if self.hears else 0


async def test_nothing_is_taken_while_the_bus_does_not_read(bus: PrivateBus, service: DBus) -> None:
    """Replies that wait to be sent would fill the memory."""
    taken = 0

    async def count(_: Call) -> Reply:
        nonlocal taken
        taken += 1
        return Reply()

    service.serve(count)
    with ExitStack() as stack:
        strangers = [stack.enter_context(Stranger(bus.address)) for _ in range(8)]
        for stranger in strangers:  # whose user is known then
            await asyncio.to_thread(_send, stranger, a_call())
        taken = 0
        deaf = Deaf(service._bus)
        for stranger in strangers:
            for _ in range(EACH):
                stranger.send(a_call())
        until = time.monotonic() + 20
        turns = 0
        while turns < 300 and time.monotonic() < until:  # after the last has come
            turns += taken + service._bus._line._count == len(strangers) * EACH
            await asyncio.sleep(0)
        assert service._bus._line
        assert library.OUTBOX <= taken <= library.OUTBOX + 3 * library.BATCH
        deaf.hears = True
        for stranger in strangers:
            replies = await asyncio.to_thread(stranger.replies, EACH)
            assert {reply.error_name for reply in replies} == {None}
        assert taken == len(strangers) * EACH


def test_a_head_that_contradicts_itself_has_no_sender() -> None:
    """No bus passes such a message on; `./run fuzz` found it."""
    message = a_call("s", ["x"])
    message.serial = 7
    data = bytearray(message._marshall())  # type: ignore[no-untyped-call]
    end = 16 + int.from_bytes(data[12:16], "little")
    data[end - 4 : end] = b"\x07\x01s\0"
    one = reader.Reader(io.BytesIO(data))  # type: ignore[no-untyped-call]
    assert one.is_here()
    assert one.sender() == ""
