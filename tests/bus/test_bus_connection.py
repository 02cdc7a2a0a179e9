"""The connection: calls, replies, signals, errors, and the end of the bus."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from dbus_next import Message

from gpuhandoff.errors import BusyError
from gpuhandoff.messages import DISCONNECTED, NO_REPLY, Bus, Call, Match, RemoteError, Reply, Signal, Variant
from gpuhandoff.service.bus import DBus, connect
from gpuhandoff.service.owners import Owners
from tests.support.bus import TEST_NAME, PrivateBus, private_bus

FAILED = "org.gpuhandoff.Error.Failed"
INTERFACE = "org.example.Interface"


async def answer(call: Call) -> Reply:
    match call.member:
        case "Echo":
            return Reply(call.signature, call.body)
        case "Who":
            return Reply("sb", (call.sender, call.interactive))
        case "Busy":
            raise BusyError("somebody else works")
        case "Bug":
            raise KeyError("secret detail")
        case "Remote":
            raise RemoteError("org.example.Error.Far", "far away")
        case "WrongReply":
            return Reply("u", ("text",))
        case "Foreign":
            return Reply("s", (b"caf\xe9".decode("utf-8", "surrogateescape"),))
        case "ForeignError":
            raise BusyError("caf\udce9 \0 \x1b[2J has it")
        case "Never":
            await asyncio.Event().wait()
    return Reply()


async def ask(client: DBus, member: str, signature: str = "", *body: object, timeout: float = 5) -> tuple[object, ...]:
    return await client.call(TEST_NAME, "/", INTERFACE, member, signature, body, timeout=timeout)


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("v", Variant("u", 7)),
        ("a{sv}", {"wait": Variant("b", False), "deep": Variant("a{sv}", {"x": Variant("av", [Variant("s", "y")])})}),
        ("a(ssa{sv})", [["a", "b", {"c": Variant("d", 0.5)}]]),
        ("ay", b"bytes"),
        ("as", []),
        ("t", 2**64 - 1),
        ("o", "/a/b"),
        ("s", "ä" * 500_000),
    ],
)
async def test_values_arrive_as_they_were_sent(service: DBus, client: DBus, signature: str, value: object) -> None:
    service.serve(answer)
    assert await ask(client, "Echo", signature, value) == (value,)


async def test_a_call_tells_who_calls_and_whether_a_person_may_be_asked(service: DBus, client: DBus) -> None:
    service.serve(answer)
    assert await ask(client, "Who") == (client.unique_name, False)
    assert await client.call(TEST_NAME, "/", INTERFACE, "Who", interactive=True) == (client.unique_name, True)


@pytest.mark.parametrize(
    ("member", "name", "text"),
    [
        ("Busy", "org.gpuhandoff.Error.Busy", "somebody else works"),
        ("Remote", "org.example.Error.Far", "far away"),
        ("ForeignError", "org.gpuhandoff.Error.Busy", "caf? ? ?[2J has it"),
    ],
)
async def test_errors_keep_name_and_sentence(service: DBus, client: DBus, member: str, name: str, text: str) -> None:
    service.serve(answer)
    with pytest.raises(RemoteError) as caught:
        await ask(client, member)
    assert (caught.value.name, caught.value.message) == (name, text)


@pytest.mark.parametrize("member", ["Bug", "WrongReply"])
async def test_a_bug_is_logged_once_and_told_without_details(
    service: DBus, client: DBus, caplog: pytest.LogCaptureFixture, member: str
) -> None:
    service.serve(answer)
    with pytest.raises(RemoteError) as caught:
        await ask(client, member)
    assert caught.value.name == FAILED
    assert "secret" not in caught.value.message
    assert "Traceback" not in caught.value.message
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None


async def test_text_that_is_no_utf_8_does_not_end_the_connection(service: DBus, client: DBus) -> None:
    service.serve(answer)
    assert await ask(client, "Foreign") == ("caf?",)


async def test_a_signal_that_cannot_be_sent_is_logged(service: DBus, caplog: pytest.LogCaptureFixture) -> None:
    service.emit(Signal("/", INTERFACE, "Wrong", "u", ("text",)))
    assert "cannot be sent" in caplog.text
    assert await service.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")


async def test_a_call_times_out(service: DBus, client: DBus) -> None:
    service.serve(answer)
    with pytest.raises(RemoteError) as caught:
        await ask(client, "Never", timeout=0.05)
    assert caught.value.name == NO_REPLY
    assert await ask(client, "Echo", "s", "still there") == ("still there",)


async def test_only_one_has_a_name(service: DBus, client: DBus) -> None:
    with pytest.raises(RemoteError, match="Somebody else owns"):
        await client.request_name(TEST_NAME)


async def test_signals_reach_who_wants_them(service: DBus, client: DBus) -> None:
    seen: list[Signal] = []
    await client.subscribe(Match(INTERFACE, "Unrelated"), seen.append)  # from anybody
    unsubscribe = await client.subscribe(Match(INTERFACE, "Happened", sender=TEST_NAME, arg0="yes"), seen.append)
    for path, first in (("/a", "yes"), ("/a", "no"), ("/b", "yes")):
        service.emit(Signal(path, INTERFACE, "Happened", "s", (first,)))
    service.emit(Signal("/a", INTERFACE, "Other", "s", ("yes",)))
    client.emit(Signal("/a", INTERFACE, "Happened", "s", ("yes",)))  # not from the sender that is wanted
    await round_trip(service, client)
    assert [(signal.path, signal.body, signal.sender) for signal in seen] == [
        ("/a", ("yes",), service.unique_name),
        ("/b", ("yes",), service.unique_name),
    ]
    unsubscribe()
    unsubscribe()
    service.emit(Signal("/a", INTERFACE, "Happened", "s", ("yes",)))
    await round_trip(service, client)
    assert len(seen) == 2


async def test_a_subscriber_that_fails_disturbs_nobody(
    service: DBus, client: DBus, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Signal] = []

    def fail(_: Signal) -> None:
        raise KeyError("bug")

    await client.subscribe(Match(INTERFACE, "Happened"), fail)
    await client.subscribe(Match(INTERFACE, "Happened"), seen.append)
    service.emit(Signal("/", INTERFACE, "Happened"))
    await round_trip(service, client)
    assert len(seen) == 1
    assert "a subscriber to org.example.Interface.Happened failed" in caplog.text


async def test_an_owner_that_changes_while_we_ask_is_the_new_one() -> None:
    class Racing:
        """The signal overtakes the answer."""

        async def subscribe(self, match: Match, callback: Callable[[Signal], None]) -> Callable[[], None]:
            self.callback = callback
            return lambda: None

        async def call(self, *_: object) -> tuple[object, ...]:
            self.callback(Signal("/", "", "", body=(TEST_NAME, ":1.1", ":1.2")))
            return (":1.1",)

    owners = Owners(cast("Bus", Racing()))
    await owners.follow(TEST_NAME)
    assert owners.owner(TEST_NAME) == ":1.2"


async def test_watching_more_callers_than_the_bus_has_rules_for(service: DBus, client: DBus) -> None:
    gone: asyncio.Queue[Signal] = asyncio.Queue()
    dbus = "org.freedesktop.DBus"
    for number in range(700):
        await service.subscribe(Match(dbus, "NameOwnerChanged", sender=dbus, arg0=f":9.{number}"), gone.put_nowait)
    await service.subscribe(Match(dbus, "NameOwnerChanged", sender=dbus, arg0=client.unique_name), gone.put_nowait)
    await client.close()
    async with asyncio.timeout(5):
        assert (await gone.get()).body == (client.unique_name, client.unique_name, "")
    assert gone.empty()


async def test_a_descriptor_is_ours_and_not_inherited(bus: PrivateBus, client: DBus) -> None:
    giver = await connect(bus.address, descriptors=True)
    await giver.request_name("org.example.Giver")
    reading, writing = os.pipe()

    async def give(_: Call) -> Reply:
        return Reply("h", (writing,))

    giver.serve(give)
    taken = await client.call_for_descriptor("org.example.Giver", "/", INTERFACE, "Take")
    assert not os.get_inheritable(taken)
    os.write(taken, b"through the bus")
    assert os.read(reading, 100) == b"through the bus"
    os.close(taken)
    assert os.read(reading, 100) == b""  # nobody else, the giver included, has it open
    os.close(reading)
    await giver.close()


async def test_a_reply_without_a_descriptor_is_an_error(service: DBus, client: DBus) -> None:
    service.serve(answer)
    before = descriptors()
    for member in ("Who", "Busy"):
        with pytest.raises(RemoteError):
            await client.call_for_descriptor(TEST_NAME, "/", INTERFACE, member)
    assert descriptors() == before


async def test_a_descriptor_that_comes_too_late_is_closed(bus: PrivateBus, client: DBus) -> None:
    """Cancelled between the reply and the next turn of the loop: a sleep inhibitor must not stay for ever."""
    giver = await connect(bus.address, descriptors=True)
    await giver.request_name("org.example.Giver")
    reading, writing = os.pipe()

    async def give(_: Call) -> Reply:
        return Reply("h", (writing,))

    giver.serve(give)
    taker = await connect(bus.address, descriptors=True)
    receive = taker._receive

    def receive_and_cancel(message: Message) -> bool:
        try:
            return receive(message)
        finally:
            waiting.cancel()

    taker._bus._user_message_handlers[:] = [receive_and_cancel]
    message = Message(destination="org.example.Giver", path="/", interface=INTERFACE, member="Take")
    waiting = asyncio.create_task(taker.send(message, 5))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await taker.close()
    await giver.close()
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_connections_leave_nothing_behind(bus: PrivateBus) -> None:
    before = descriptors()
    for _ in range(20):
        connection = await connect(bus.address, descriptors=True)
        await connection.close()
    assert descriptors() == before


async def test_what_waits_ends_with_the_bus() -> None:
    with private_bus() as doomed:
        service, client = await connect(doomed.address), await connect(doomed.address)
        await service.request_name(TEST_NAME)
        service.serve(answer)
        waiting = asyncio.create_task(ask(client, "Never", timeout=60))
        closed = asyncio.create_task(service.wait_closed())
        await asyncio.sleep(0.05)
        doomed.kill()
        async with asyncio.timeout(5):
            with pytest.raises(RemoteError) as caught:
                await waiting
            await closed
            await client.wait_closed()
        assert caught.value.name == DISCONNECTED
        client.emit(Signal("/", INTERFACE, "Happened"))
        with pytest.raises(RemoteError) as caught:
            await ask(client, "Echo", "s", "anybody?")
        assert caught.value.name == DISCONNECTED
        await client.close()
        await service.close()


async def test_no_bus_is_told(tmp_path: Path) -> None:
    for address in (f"unix:path={tmp_path}/none", "nonsense"):
        with pytest.raises(RemoteError) as caught:
            await connect(address)
        assert caught.value.name == DISCONNECTED
    gc.collect()


async def test_a_bus_that_hangs_up_at_once_is_told() -> None:
    """dbus-next asks such a bus for ever, without letting anybody else run."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{directory}/socket")
        listening.listen()
        attempt = asyncio.create_task(connect(f"unix:path={directory}/socket"))
        await asyncio.sleep(0)
        accepted, _ = listening.accept()
        accepted.recv(100)
        accepted.close()
        async with asyncio.timeout(5):
            with pytest.raises(RemoteError) as caught:
                await attempt
        assert caught.value.name == DISCONNECTED


async def round_trip(service: DBus, client: DBus) -> None:
    """Wait until everything that either has sent so far has arrived."""
    dbus = "org.freedesktop.DBus"
    for one in (service, client, service, client):
        await one.call(dbus, "/org/freedesktop/DBus", dbus, "GetId")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
