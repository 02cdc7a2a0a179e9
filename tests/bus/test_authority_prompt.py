"""The password prompt of the real polkitd: what it says, what may happen meanwhile, and that it goes with its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant

from gpuhandoff import names
from gpuhandoff.simulation.sessions import Login
from gpuhandoff.simulation.snapshot import differences
from tests.support.polkit import AUTHORITY, NAME, find_polkitd
from tests.support.stage import GPU, USERS, Audience, Stage, a_call, audience, desktop_of, options, stage
from tests.support.stranger import Person, Stranger

pytestmark = pytest.mark.skipif(find_polkitd() is None, reason="needs root and polkitd")

PATH = "/org/freedesktop/PolicyKit1/Authority"
AGENT = "/org/example/Agent"
HANDOFF = a_call("Handoff", "sa{sv}", GPU, options(stop_display=True, vm="win11"), interactive=True)


class Agent:
    """What a desktop has to ask for passwords: shows them to the test, and answers as root's helper would."""

    def __init__(self, there: Audience) -> None:
        self._address = there.bus.address
        self._own = there.people["agent"]

    @classmethod
    async def start(cls, there: Audience) -> Agent:
        """Register for the session of the active user, in which another of its connections is."""
        agent = cls(there)
        subject = ["unix-session", {"session-id": Variant("s", "1")}]
        reply = await asyncio.to_thread(
            agent._own.call, NAME, PATH, AUTHORITY, "RegisterAuthenticationAgent", "(sa{sv})ss", [subject, "C", AGENT]
        )
        assert not reply.error_name, reply.body
        return agent

    async def asked(self, member: str = "BeginAuthentication") -> Message:
        """Return the next thing that polkitd wants of it."""
        while True:
            message = await asyncio.to_thread(self._own.receive)
            if message.message_type is MessageType.METHOD_CALL and message.member == member:
                return message

    async def give_password(self, question: Message) -> None:
        """Root's password was right."""
        cookie = question.body[4]
        identity = ["unix-user", {"uid": Variant("u", 0)}]
        body: list[Any] = [USERS["active"], cookie, identity]
        with Stranger(self._address, uid=0) as helper:
            done = await asyncio.to_thread(
                helper.call, NAME, PATH, AUTHORITY, "AuthenticationAgentResponse2", "us(sa{sv})", body
            )
        assert not done.error_name, done.body
        self._own.send(Message.new_method_return(question))


@pytest.fixture
def people() -> Iterator[Audience]:
    with audience(agent=True) as there:
        yield there


async def prompt(here: Stage, agent: Agent) -> tuple[asyncio.Task[Message], Message]:
    asking = asyncio.create_task(here.call("active", HANDOFF))
    return asking, await agent.asked()


async def test_it_says_which_card_for_whom_and_whose_desktop_ends(people: Audience, tmp_path: Path) -> None:
    async with stage(people, tmp_path, partial(desktop_of, 65534)) as here:
        agent = await Agent.start(people)
        before = here.machine.snapshot()
        asking, question = await prompt(here, agent)
        action, message, *_ = question.body
        assert action == names.ACTION_HANDOFF_OTHERS
        for word in (GPU, "RTX 4070", "win11", "other users", "somebody"):
            assert word in message
        for _ in range(20):  # nothing waits for the person
            assert not (await here.ask("root", "Status")).error_name
        assert differences(before, here.machine.snapshot()) == []
        await agent.give_password(question)
        assert not (await asking).error_name
        assert await here.state() == "detached"
        assert not (await here.ask("root", "Reclaim", "sa{sv}", GPU, {})).error_name


async def test_the_world_is_looked_at_again_after_it(people: Audience, tmp_path: Path) -> None:
    async with stage(people, tmp_path, partial(desktop_of, USERS["active"])) as here:
        agent = await Agent.start(people)
        asking, question = await prompt(here, agent)
        assert question.body[0] == names.ACTION_HANDOFF_DISPLAY
        machine = here.machine
        manager = machine.units.find("display-manager.service")
        assert manager is not None
        assert manager.main is not None
        await machine.sessions.open(Login("bob", 65534, "kwin_wayland", (GPU,)), manager.main, machine.display_nodes((GPU,)))
        before = machine.snapshot()
        await agent.give_password(question)
        reply = await asking
        assert reply.error_name == "org.gpuhandoff.Error.NeedsConsent"
        assert "bob" in reply.body[0]
        async with asyncio.timeout(60):  # logind closes the inhibitor that every job has after the answer
            while differences(before, machine.snapshot()):
                await here.ask("root", "Status")


async def test_root_may_end_the_desktop_of_who_has_just_logged_in(people: Audience, tmp_path: Path) -> None:
    """Seen on the real kernel: the daemon of a machine that has just booted had looked before the first login."""
    async with stage(people, tmp_path, partial(desktop_of, 0)) as here:
        manager = here.machine.units.find("display-manager.service")
        assert manager is not None
        assert manager.main is not None
        bob = Login("bob", 65534, "kwin_wayland", (GPU,))
        await here.machine.sessions.open(bob, manager.main, here.machine.display_nodes((GPU,)))
        reply = await here.ask("root", "Handoff", "sa{sv}", GPU, options(stop_display=True))
        assert not reply.error_name, reply.body
        assert await here.state() == "detached"
        assert not (await here.ask("root", "Reclaim", "sa{sv}", GPU, {})).error_name


async def test_it_closes_when_its_caller_leaves(people: Audience, tmp_path: Path) -> None:
    async with stage(people, tmp_path, partial(desktop_of, USERS["active"])) as here:
        agent = await Agent.start(people)
        before = here.machine.snapshot()
        caller: Person = people.people["active"]
        caller.send(HANDOFF)
        question = await agent.asked()
        caller.close()
        closed = await agent.asked("CancelAuthentication")
        assert closed.body == [question.body[4]]
        assert not (await here.ask("root", "Status")).error_name
        assert differences(before, here.machine.snapshot()) == []
        assert here.journals() == []
