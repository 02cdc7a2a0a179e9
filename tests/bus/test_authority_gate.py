"""The gate: the denied caller first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from dbus_next import Message, MessageType

from gpuhandoff.authority.gate import DBUS, Gate
from gpuhandoff.errors import AccessDeniedError, AuthorizationRequiredError
from gpuhandoff.names import ACTION_EVICT_GUEST, ACTION_HANDOFF, ACTION_INHIBIT, ACTION_STATUS
from gpuhandoff.service.bus import DBus, connect
from tests.support.bus import NOBODY, PrivateBus
from tests.support.polkit import FakePolkit, find_polkitd, real_polkit
from tests.support.stranger import Stranger

DETAILS = {"gpu": "0000:01:00.0 (a card)", "vm": "win11"}

needs_polkitd = pytest.mark.skipif(find_polkitd() is None, reason="needs root and polkitd")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def stranger(bus: PrivateBus) -> Iterator[Stranger]:
    with Stranger(bus.address) as one:
        yield one


@pytest_asyncio.fixture
async def polkit(bus: PrivateBus) -> AsyncIterator[FakePolkit]:
    connection = await connect(bus.address)
    fake = FakePolkit()
    await fake.attach(connection)
    yield fake
    await connection.close()


async def test_no_means_no(service: DBus, polkit: FakePolkit, stranger: Stranger) -> None:
    polkit.answer = "no"
    for interactive in (False, True):
        with pytest.raises(AccessDeniedError, match=r"^You are not allowed to do this \(org.gpuhandoff.handoff\)\.$"):
            await Gate(service).allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=interactive)


async def test_nobody_else_answers_for_polkit(service: DBus, polkit: FakePolkit, stranger: Stranger) -> None:
    """Nor for the bus, which is asked who is root: answers to questions that nobody was asked stop at the bus."""
    polkit.answer = "never"
    asking = asyncio.create_task(Gate(service).allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=False))
    await polkit.asked.wait()
    for kind, signature, body in (("yes", "(bba{ss})", [[True, False, {}]]), ("root", "u", [0])):
        for serial in range(1, 200):
            answer = Message(
                message_type=MessageType.METHOD_RETURN,
                destination=service.unique_name,
                reply_serial=serial,
                signature=signature,
                body=body,
            )
            stranger.send(answer)
        assert await asyncio.to_thread(stranger.call, DBUS, "/", DBUS, "GetId"), kind
    assert await service.call(DBUS, "/", DBUS, "GetId")  # whatever came before this has been read
    assert not asking.done()
    asking.cancel()
    assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
    assert await Gate(service).uid(stranger.name) == NOBODY


async def test_no_action_is_no_permission(service: DBus, polkit: FakePolkit, stranger: Stranger) -> None:
    with pytest.raises(AccessDeniedError):
        await Gate(service).allow(stranger.name, [], {}, interactive=True)
    assert not polkit.questions


async def test_all_actions_are_asked_for_until_one_is_denied(service: DBus, polkit: FakePolkit, stranger: Stranger) -> None:
    await Gate(service).allow(stranger.name, [ACTION_HANDOFF, ACTION_EVICT_GUEST], DETAILS, interactive=True)
    assert polkit.questions == [
        (stranger.name, ACTION_HANDOFF, DETAILS, False),  # a person is asked only where that is needed
        (stranger.name, ACTION_EVICT_GUEST, DETAILS, False),
    ]
    polkit.answer = "no"
    with pytest.raises(AccessDeniedError):
        await Gate(service).allow(stranger.name, [ACTION_HANDOFF, ACTION_EVICT_GUEST], {}, interactive=False)
    assert polkit.questions[2:] == [(stranger.name, ACTION_HANDOFF, {}, False)]


@pytest.mark.parametrize(
    ("answer", "interactive", "error", "text"),
    [
        ("challenge", False, AuthorizationRequiredError, "needs a password, and this call does not allow"),
        ("challenge", True, AccessDeniedError, "nobody could be asked"),
        ("dismissed", True, AccessDeniedError, "was dismissed"),
    ],
)
async def test_a_password_that_is_not_given(
    service: DBus, polkit: FakePolkit, stranger: Stranger, answer: str, interactive: bool, error: type, text: str
) -> None:
    polkit.answer = answer
    with pytest.raises(error, match=text):
        await Gate(service).allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=interactive)


async def test_a_caller_that_leaves_is_refused_and_its_prompt_closed(
    service: DBus, polkit: FakePolkit, stranger: Stranger
) -> None:
    polkit.answer = "never"
    question = asyncio.create_task(Gate(service).allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=True))
    await polkit.asked.wait()
    stranger.close()
    async with asyncio.timeout(5):
        with pytest.raises(AccessDeniedError, match="left the bus"):
            await question
        await polkit.cancel_seen.wait()
    assert set(polkit.cancelled) == polkit.open


async def test_a_cancelled_question_closes_its_prompt(service: DBus, polkit: FakePolkit, stranger: Stranger) -> None:
    polkit.answer = "never"
    question = asyncio.create_task(Gate(service).allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=True))
    await polkit.asked.wait()
    question.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await question
        await polkit.cancel_seen.wait()
    assert set(polkit.cancelled) == polkit.open


async def test_who_has_left_already_is_refused(service: DBus, polkit: FakePolkit, stranger: Stranger) -> None:
    name = stranger.name
    stranger.close()
    for sender in (name, ":9.999", ""):
        with pytest.raises(AccessDeniedError):
            await Gate(service).allow(sender, [ACTION_STATUS], {}, interactive=False)
    assert not polkit.questions


@needs_root
@pytest.mark.parametrize("answer", [None, "error"])
async def test_without_polkit_root_may_and_nobody_else(
    bus: PrivateBus, service: DBus, stranger: Stranger, answer: str | None
) -> None:
    helper = await connect(bus.address)
    if answer is not None:
        await FakePolkit(answer).attach(helper)
    gate = Gate(service)
    with Stranger(bus.address, uid=0) as root:
        await gate.allow(root.name, [ACTION_EVICT_GUEST], DETAILS, interactive=False)
    for action in (ACTION_STATUS, ACTION_EVICT_GUEST):
        with pytest.raises(AccessDeniedError, match="polkit cannot be asked"):
            await gate.allow(stranger.name, [action], DETAILS, interactive=True)
    await helper.close()


async def test_polkit_that_goes_away_during_a_prompt_is_no_permission(
    bus: PrivateBus, service: DBus, stranger: Stranger
) -> None:
    helper = await connect(bus.address)
    fake = FakePolkit("never")
    await fake.attach(helper)
    question = asyncio.create_task(Gate(service).allow(stranger.name, [ACTION_STATUS], {}, interactive=True))
    await fake.asked.wait()
    await helper.close()
    async with asyncio.timeout(5):
        with pytest.raises(AccessDeniedError, match="polkit cannot be asked"):
            await question


@needs_polkitd
async def test_real_polkit_with_our_policy(bus: PrivateBus, service: DBus, stranger: Stranger) -> None:
    """Strangers here have no session at all: what allow_any says counts for them."""
    gate = Gate(service)
    with real_polkit(bus), Stranger(bus.address, uid=0) as root:
        await gate.allow(root.name, [ACTION_HANDOFF, ACTION_EVICT_GUEST], DETAILS, interactive=False)
        await gate.allow(stranger.name, [ACTION_STATUS], {}, interactive=False)
        with pytest.raises(AuthorizationRequiredError):
            await gate.allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=False)
        with pytest.raises(AccessDeniedError, match="nobody could be asked"):
            await gate.allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=True)
        with pytest.raises(AccessDeniedError, match="not allowed"):
            await gate.allow(stranger.name, [ACTION_INHIBIT], {}, interactive=True)
        with pytest.raises(AccessDeniedError):
            await gate.allow(stranger.name, ["org.gpuhandoff.unknown"], {}, interactive=True)


RULE = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.gpuhandoff.handoff" && action.lookup("gpu") == "0000:01:00.0 (a card)"
        && action.lookup("vm") == "win11" && subject.user == "nobody") return polkit.Result.YES;
});
"""


@needs_polkitd
async def test_a_rule_sees_which_gpu_and_which_machine(bus: PrivateBus, service: DBus, stranger: Stranger) -> None:
    gate = Gate(service)
    with real_polkit(bus, rules=RULE):
        await gate.allow(stranger.name, [ACTION_HANDOFF], DETAILS, interactive=False)
        with pytest.raises(AuthorizationRequiredError):
            await gate.allow(stranger.name, [ACTION_HANDOFF], {**DETAILS, "vm": "other"}, interactive=False)
