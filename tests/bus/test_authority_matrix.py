"""Who may do what: every member, every kind of caller, everything that a move may do, before the real polkitd.

The expectations are written out here, on purpose a second time: the table and the policy file have to agree with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message

from gpuhandoff.authority.table import METHODS
from gpuhandoff.messages import Variant
from gpuhandoff.names import HYPERVISOR_INTERFACE, JOB_INTERFACE, JOB_PATH_PREFIX, MANAGER_INTERFACE, ROOT_PATH
from gpuhandoff.simulation.faults import hang
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from tests.support.bus import private_bus
from tests.support.domains import domain_xml
from tests.support.polkit import Login, find_polkitd, real_polkit
from tests.support.stage import DBUS, GPU, USERS, Audience, Stage, a_call, audience, desktop_of, options, stage
from tests.support.stranger import Contained, Person

pytestmark = pytest.mark.skipif(find_polkitd() is None, reason="needs root and polkitd")

YES, PASSWORD, NO = "yes", "password", "no"
ALL, CONSOLE, ADMIN, ROOT = (YES,) * 6, (YES, YES, *(PASSWORD,) * 4), (YES, *(PASSWORD,) * 5), (YES, *(NO,) * 5)
SESSIONS, NOBODY = (YES, YES, YES, NO, NO, NO), (NO,) * 6
"""For root, the active and an inactive local user, one from the network, a system account, and root of a container."""
SOMEBODY_ELSE = 65534

Build = Callable[[], Awaitable[SimulatedMachine]]


@pytest.fixture(scope="module")
def people() -> Iterator[Audience]:
    with audience() as there:
        yield there


def said(reply: Message) -> str:
    """Return what an answer means."""
    match str(reply.error_name or ""):
        case "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
            return PASSWORD
        case "org.freedesktop.DBus.Error.AccessDenied" | "org.freedesktop.DBus.Error.PropertyReadOnly":
            return NO
        case "":
            return YES
    raise AssertionError((reply.error_name, reply.body))


PROPERTIES = f"{DBUS}.Properties"
HOOK = ("win11", "stopped", "end", "-")
MEMBERS: list[tuple[Message, tuple[str, ...]]] = [
    (a_call("Status"), ALL),
    (a_call("Plan", "ssa{sv}", GPU, "handoff", {}), CONSOLE),
    (a_call("Preview", "ssa{sv}", GPU, "handoff", {}), CONSOLE),
    (a_call("Diagnose"), CONSOLE),
    (a_call("Holders", "s", GPU), CONSOLE),
    (a_call("History", "su", "", 0), CONSOLE),
    (a_call("Report", "a{sv}", {}), CONSOLE),
    (a_call("Handoff", "sa{sv}", GPU, options(dry_run=True)), CONSOLE),
    (a_call("Event", "sssss", *HOOK, domain_xml(), interface=HYPERVISOR_INTERFACE), ROOT),
    (a_call("EventInParts", "ssssas", *HOOK, [domain_xml()], interface=HYPERVISOR_INTERFACE), ROOT),
    (a_call("Get", "ss", MANAGER_INTERFACE, "Version", interface=PROPERTIES), ALL),
    (a_call("GetAll", "s", MANAGER_INTERFACE, interface=PROPERTIES), ALL),
    (a_call("Set", "ssv", MANAGER_INTERFACE, "Busy", Variant("b", True), interface=PROPERTIES), NOBODY),
    (a_call("GetManagedObjects", path=ROOT_PATH, interface=f"{DBUS}.ObjectManager"), ALL),
    (a_call("Introspect", interface=f"{DBUS}.Introspectable"), ALL),
    (a_call("Ping", interface=f"{DBUS}.Peer"), ALL),
    (a_call("GetMachineId", interface=f"{DBUS}.Peer"), ALL),
]


async def test_members_that_change_nothing(people: Audience, tmp_path: Path) -> None:
    async with stage(people, tmp_path, SCENARIOS["igpu-dgpu"]) as here:
        before = here.machine.snapshot()
        for message, row in MEMBERS:
            for who, expected in zip(USERS, row, strict=True):
                reply = await here.call(who, message)
                machine_id = message.member == "GetMachineId" and reply.error_name == "org.gpuhandoff.Error.Unsupported"
                assert machine_id or said(reply) == expected, (message.member, who, reply.body)
            assert changes(before, here.machine.snapshot()) == [], message.member


def test_every_member_is_here() -> None:
    rest = {(MANAGER_INTERFACE, one) for one in ("Handoff", "Reclaim", "Inhibit", "Uninhibit")} | {
        (JOB_INTERFACE, one) for one in ("Cancel", "Object")
    }
    assert {(message.interface, message.member) for message, _ in MEMBERS} | rest == set(METHODS)


@dataclass(frozen=True, slots=True)
class Move:
    """A move, on which machine, and who may have it."""

    member: str
    given: dict[str, Variant]
    row: tuple[str, ...]
    build: Callable[[str], Build] = lambda _: SCENARIOS["igpu-dgpu"]
    prepare: Callable[[Stage], Awaitable[Any]] | None = None
    ends: str = "detached"
    """Where the card is afterwards; empty: where it was."""

    @property
    def message(self) -> Message:
        return a_call(self.member, "sa{sv}", GPU, self.given)


async def used(here: Stage) -> None:
    """Somebody else's program has the card open."""
    here.machine.processes.spawn("train", uid=SOMEBODY_ELSE, opens=["/dev/nvidia0"])


async def lent(here: Stage) -> None:
    assert said(await here.ask("root", "Handoff", "sa{sv}", GPU, {})) == YES


async def with_guest(here: Stage) -> None:
    await lent(here)
    here.machine.start_guest(GPU)
    await here.daemon.fleet.survey()


MOVES = {
    "lends an idle card": Move("Handoff", {}, CONSOLE),
    "ends the caller's own desktop": Move(
        "Handoff", options(stop_display=True), ADMIN, lambda who: partial(desktop_of, USERS[who])
    ),
    "ends somebody else's desktop": Move(
        "Handoff", options(stop_display=True), ADMIN, lambda _: partial(desktop_of, SOMEBODY_ELSE)
    ),
    "ends programs": Move("Handoff", options(holders="terminate"), ADMIN, prepare=used),
    "accepts a risk": Move("Handoff", options(accept_risk=True), ADMIN),
    "takes a card back": Move("Reclaim", {}, CONSOLE, prepare=lent, ends="host"),
    "tells how to take it back": Move("Reclaim", options(dry_run=True), CONSOLE, prepare=lent, ends=""),
    "ends a guest": Move("Reclaim", options(holders="terminate"), ADMIN, prepare=with_guest, ends="host"),
}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what is different, but for the delay that a move before has asked logind for: it is let go when it comes."""
    return [line for line in differences(before, after) if not line.endswith("sleep:shutdown gpuhandoff delay")]


@pytest.mark.parametrize("who", [*USERS, "left"])
@pytest.mark.parametrize("what", MOVES)
async def test_moves(people: Audience, tmp_path: Path, what: str, who: str) -> None:
    move = MOVES[what]
    async with stage(people, tmp_path, move.build("active" if who == "left" else who)) as here:
        if move.prepare is not None:
            await move.prepare(here)
        before, state, journals = here.machine.snapshot(), await here.state(), here.journals()
        if who == "left":
            await here.leave(move.message)
            expected = NO
        else:
            expected = move.row[list(USERS).index(who)]
            reply = await here.call(who, move.message)
            assert said(reply) == expected, reply.body
        if expected == YES and move.ends:
            assert await here.state() == move.ends
            assert changes(before, here.machine.snapshot()) != []
        else:
            assert changes(before, here.machine.snapshot()) == []
            assert (await here.state(), here.journals()) == (state, journals)
        await put_back(here)


async def put_back(here: Stage) -> None:
    """Have the card with the host, so that nothing stays open."""
    if await here.state() != "host":
        assert said(await here.ask("root", "Reclaim", "sa{sv}", GPU, options(holders="terminate"))) == YES


@pytest.mark.parametrize("who", USERS)
async def test_a_job_of_somebody_else_is_watched_and_not_cancelled(people: Audience, tmp_path: Path, who: str) -> None:
    async with stage(people, tmp_path, partial(desktop_of, 0)) as here:
        release = asyncio.Event()
        here.machine.faults.set(hang(release), target="ListSessions")
        assert said(await here.ask("root", "Handoff", "sa{sv}", GPU, options(stop_display=True, wait=False))) == YES
        path = JOB_PATH_PREFIX + "1"
        shown = await here.call(who, a_call("GetAll", "s", JOB_INTERFACE, path=path, interface=PROPERTIES))
        assert shown.body[0]["Result"].value == ""
        reply = await here.call(who, a_call("Cancel", path=path, interface=JOB_INTERFACE))
        assert said(reply) == (YES if who == "root" else NO)
        shown = await here.call(who, a_call("Get", "ss", JOB_INTERFACE, "Result", path=path, interface=PROPERTIES))
        assert shown.body[0].value == ("cancelled" if who == "root" else "")
        here.daemon.jobs.cancel_all()
        release.set()


@pytest.mark.parametrize("who", USERS)
async def test_only_whose_desktop_ends_objects_to_roots_handoff(people: Audience, tmp_path: Path, who: str) -> None:
    """The desktop is the active user's. Others hold such an inhibitor as well, where they may: it gives them no say."""
    async with stage(people, tmp_path, partial(desktop_of, USERS["active"])) as here:
        for holder in ("active", who):
            await here.ask(holder, "Inhibit", "sss", "desktop", "it asks", "session")
        before = here.machine.snapshot()
        assert said(await here.ask("root", "Handoff", "sa{sv}", GPU, options(stop_display=True, wait=False))) == YES
        path = JOB_PATH_PREFIX + "1"
        waits = a_call("Get", "ss", JOB_INTERFACE, "WaitsUntil", path=path, interface=PROPERTIES)
        while (await here.call("root", waits)).body[0].value == 0:
            pass
        reply = await here.call(who, a_call("Object", "s", "not now", path=path, interface=JOB_INTERFACE))
        assert said(reply) == (YES if who == "active" else NO)
        if who != "active":
            assert said(await here.call("root", a_call("Cancel", path=path, interface=JOB_INTERFACE))) == YES
        await here.daemon.jobs.settle()
        assert changes(before, here.machine.snapshot()) == []
        for holder in ("active", who):
            for cookie in (1, 2):
                await here.ask(holder, "Uninhibit", "u", cookie)


@pytest.mark.parametrize(("who", "expected"), [*zip(USERS, SESSIONS, strict=True)])
async def test_inhibitors(people: Audience, tmp_path: Path, who: str, expected: str) -> None:
    async with stage(people, tmp_path, SCENARIOS["igpu-dgpu"]) as here:
        before = here.machine.snapshot()
        reply = await here.ask(who, "Inhibit", "sss", "who", "why", "block")
        assert said(reply) == expected
        held = await here.ask("root", "Handoff", "sa{sv}", GPU, {}) if expected == YES else None
        if held is not None:
            assert held.error_name == "org.gpuhandoff.Error.Inhibited"
            for other in USERS.keys() - {who}:
                assert (await here.ask(other, "Uninhibit", "u", 1)).error_name == "org.gpuhandoff.Error.NotFound"
            assert said(await here.ask(who, "Uninhibit", "u", 1)) == YES
        await here.leave(a_call("Inhibit", "sss", "who", "why", "block"))
        blocked = await here.call("root", a_call("Get", "ss", MANAGER_INTERFACE, "Inhibited", interface=PROPERTIES))
        assert blocked.body[0].value is False
        assert changes(before, here.machine.snapshot()) == []


@pytest.mark.parametrize("kind", [Person, Contained])
@pytest.mark.parametrize(("uid", "claims"), [(100_000, None), (100_000, 0), (USERS["contained"], 0)])
def test_a_container_with_users_of_its_own(people: Audience, kind: type[Person], uid: int, claims: int | None) -> None:
    """Its root is a user that this machine has no name for, or not the one that it claims to be: the bus knows better."""
    with pytest.raises((EOFError, PermissionError, BrokenPipeError)):
        kind(people.bus.address, uid=uid, claims=claims)


async def test_who_is_root_in_namespaces_of_their_own_is_who_they_were(tmp_path: Path) -> None:
    """No more than that, but no less either: they have not left their session."""
    with ExitStack() as stack:
        bus = stack.enter_context(private_bus())
        person = stack.enter_context(closing(Contained(bus.address, uid=USERS["active"])))
        stack.enter_context(real_polkit(bus, logins=[Login(person.pid, USERS["active"], "1")]))
        async with stage(Audience(bus, {"root": person}), tmp_path, SCENARIOS["igpu-dgpu"]) as here:
            before = here.machine.snapshot()
            event = a_call("Event", "sssss", *HOOK, domain_xml(), interface=HYPERVISOR_INTERFACE)
            assert said(await here.call("root", event)) == NO
            assert said(await here.ask("root", "Handoff", "sa{sv}", GPU, options(accept_risk=True))) == PASSWORD
            assert changes(before, here.machine.snapshot()) == []
            assert said(await here.ask("root", "Handoff", "sa{sv}", GPU, {})) == YES
            assert said(await here.ask("root", "Reclaim", "sa{sv}", GPU, {})) == YES


GRANT = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.gpuhandoff.handoff-display") return polkit.Result.YES;
});
"""


async def test_who_may_end_their_own_desktop_may_not_end_anothers(tmp_path: Path) -> None:
    with audience(rules=GRANT) as there:
        for uid, expected in ((USERS["active"], YES), (SOMEBODY_ELSE, PASSWORD)):
            async with stage(there, tmp_path / str(uid), partial(desktop_of, uid)) as here:
                reply = await here.ask("active", "Handoff", "sa{sv}", GPU, options(stop_display=True))
                assert said(reply) == expected
                await put_back(here)
