"""The bus in this process behaves as a bus."""

import asyncio

import pytest

from gpuhandoff.errors import BusyError
from gpuhandoff.messages import DISCONNECTED, NO_REPLY, SERVICE_UNKNOWN, Call, Match, RemoteError, Reply, Signal
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.loopback import LoopbackBroker, LoopbackBus

NAME = "org.example.Service"


async def answer(call: Call) -> Reply:
    match call.member:
        case "Echo":
            return Reply("ss", (call.sender, call.body[0]))
        case "Busy":
            raise BusyError("somebody else works")
        case "Sleep":
            await asyncio.sleep(60)
            return Reply()
        case "WrongReply":
            return Reply("u", ("text",))
        case _:
            raise KeyError(call.member)


async def pair() -> tuple[LoopbackBroker, LoopbackBus]:
    broker = LoopbackBroker()
    service = broker.connect()
    service.serve(answer)
    await service.request_name(NAME)
    return broker, service


@in_virtual_time
async def test_a_call_tells_who_calls() -> None:
    broker, _ = await pair()
    client = broker.connect()
    assert await client.call(NAME, "/", NAME, "Echo", "s", ("hello",)) == (client.unique_name, "hello")


@in_virtual_time
@pytest.mark.parametrize(
    ("member", "error"),
    [
        ("Busy", "org.gpuhandoff.Error.Busy"),
        ("Sleep", NO_REPLY),
        ("Other", "org.gpuhandoff.Error.Failed"),
        ("WrongReply", "org.gpuhandoff.Error.Failed"),
    ],
)
async def test_failures_have_names(member: str, error: str) -> None:
    broker, _ = await pair()
    with pytest.raises(RemoteError) as caught:
        await broker.connect().call(NAME, "/", NAME, member, timeout=5)
    assert caught.value.name == error


@in_virtual_time
async def test_nobody_there() -> None:
    client = LoopbackBroker().connect()
    with pytest.raises(RemoteError) as caught:
        await client.call(NAME, "/", NAME, "Echo")
    assert caught.value.name == SERVICE_UNKNOWN
    await client.close()
    await client.wait_closed()
    with pytest.raises(RemoteError) as caught:
        await client.call(NAME, "/", NAME, "Echo")
    assert caught.value.name == DISCONNECTED


@in_virtual_time
async def test_a_body_that_does_not_fit_its_signature_is_refused() -> None:
    broker, _ = await pair()
    with pytest.raises(TypeError):
        await broker.connect().call(NAME, "/", NAME, "Echo", "u", ("text",))


@in_virtual_time
async def test_signals_reach_those_whose_match_fits() -> None:
    broker, service = await pair()
    client = broker.connect()
    seen: dict[str, list[Signal]] = {"all": [], "arg0": [], "sender": [], "other": []}
    await client.subscribe(Match(NAME, "Changed"), seen["all"].append)
    await client.subscribe(Match(NAME, "Changed", arg0="b"), seen["arg0"].append)
    await client.subscribe(Match(NAME, "Changed", sender=NAME, path="/x"), seen["sender"].append)
    unsubscribe = await client.subscribe(Match(NAME, "Changed"), seen["other"].append)
    unsubscribe()
    for value in ("a", "b"):
        service.emit(Signal("/x", NAME, "Changed", "s", (value,)))
    await asyncio.sleep(0.1)
    assert {name: [signal.body[0] for signal in signals] for name, signals in seen.items()} == {
        "all": ["a", "b"],
        "arg0": ["b"],
        "sender": ["a", "b"],
        "other": [],
    }


@in_virtual_time
async def test_a_name_has_one_owner_and_its_loss_is_told() -> None:
    broker, service = await pair()
    client = broker.connect()
    with pytest.raises(RemoteError):
        await client.request_name(NAME)
    lost: list[Signal] = []
    match = Match("org.freedesktop.DBus", "NameOwnerChanged", sender="org.freedesktop.DBus", arg0=NAME)
    await client.subscribe(match, lost.append)
    service.drop()
    await asyncio.sleep(0.1)
    assert [signal.body for signal in lost] == [(NAME, service.unique_name, "")]
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    assert await client.call(*bus, "NameHasOwner", "s", (NAME,)) == (False,)
