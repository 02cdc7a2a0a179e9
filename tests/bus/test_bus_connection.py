"""The connection: calls, replies, signals, errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import pytest

from gpuhandoff.messages import NO_REPLY, Bus, Match, RemoteError, Signal, Variant
from gpuhandoff.service.bus import DBus
from gpuhandoff.service.owners import Owners
from tests.support.bus import TEST_NAME
from tests.support.echo import INTERFACE, answer, ask

FAILED = "org.gpuhandoff.Error.Failed"


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


async def round_trip(service: DBus, client: DBus) -> None:
    """Wait until everything that either has sent so far has arrived."""
    dbus = "org.freedesktop.DBus"
    for one in (service, client, service, client):
        await one.call(dbus, "/org/freedesktop/DBus", dbus, "GetId")
