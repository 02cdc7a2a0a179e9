"""Delays: who is waited for, for how long, and who may object to what while nothing has been touched yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff import names
from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import Match, RemoteError, Signal, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Perform
from gpuhandoff.simulation.loopback import LoopbackBus
from gpuhandoff.simulation.scenarios import SCENARIOS, SECOND_GPU
from gpuhandoff.simulation.sessions import Compositor, Login
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

GPU = "0000:01:00.0"
ALICE, BOB = 1000, 1001
CONSENT = {"stop-display": Variant("b", True), "wait": Variant("b", False)}
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
LATE = "org.gpuhandoff.Error.WrongState"


class Participant:
    """A program on the bus that hears what is told and calls what it likes."""

    def __init__(self, one: Product, uid: int) -> None:
        self.bus: LoopbackBus = one.broker.connect(uid=uid)
        self.job = names.JOB_PATH_PREFIX + "1"

    async def call(self, member: str, signature: str = "", *body: Any) -> Any:
        reply = await self.bus.call(
            names.BUS_NAME, names.MANAGER_PATH, names.MANAGER_INTERFACE, member, signature, body, timeout=3600
        )
        return reply[0] if reply else None

    async def inhibit(self, mode: str) -> int:
        return int(await self.call("Inhibit", "sss", "Editor", "it saves", mode))

    async def hear(self, act: Callable[[], None]) -> None:
        """Do something when a handoff begins."""
        begins = Match(names.MANAGER_INTERFACE, "PrepareForHandoff")
        await self.bus.subscribe(begins, lambda signal: act() if signal.body[1] else None)

    async def on_job(self, member: str, *body: Any) -> None:
        await self.bus.call(names.BUS_NAME, self.job, names.JOB_INTERFACE, member, "s" * len(body), body)

    async def job_properties(self) -> dict[str, Any]:
        properties = "org.freedesktop.DBus.Properties"
        (found,) = await self.bus.call(names.BUS_NAME, self.job, properties, "GetAll", "s", (names.JOB_INTERFACE,))
        return {name: variant.value for name, variant in found.items()}


async def product(directory: Path, *, delay: int = 5, session: int = 60) -> Product:
    configuration = Configuration(HostSettings(inhibit_delay=delay, session_delay=session))
    return await Product(await SCENARIOS["single-nvidia"](), directory, configuration).start()


def now() -> float:
    return asyncio.get_running_loop().time()


async def started(one: Product, uid: int = ALICE) -> float:
    """Ask for a handoff that ends the desktop, and return when that was."""
    who = Participant(one, uid)
    at = now()
    await who.call("Handoff", "sa{sv}", GPU, CONSENT)
    return at


async def first_step(one: Product) -> float:
    """Return when the first step begins."""
    begun = asyncio.get_running_loop().create_future()

    def progress(_: Signal) -> None:
        if not begun.done():
            begun.set_result(now())

    await one.client.subscribe(Match(names.MANAGER_INTERFACE, "Progress"), progress)
    return float(await begun)


async def end(one: Product) -> None:
    """Have the GPU back, and stop."""
    await one.idle()
    if (await one.status(GPU))["state"] != "host":
        await one.reclaim(GPU)
    await one.stop()


@in_virtual_time
async def test_a_client_that_saves_is_waited_for(tmp_path: Path) -> None:
    one = await product(tmp_path)
    editor = Participant(one, ALICE)
    cookie = await editor.inhibit("delay")
    saving: list[asyncio.Task[None]] = []

    async def save() -> None:
        await asyncio.sleep(2)
        await editor.call("Uninhibit", "u", cookie)

    await editor.hear(lambda: saving.append(asyncio.create_task(save())))
    asked = await started(one)
    assert 2 <= await first_step(one) - asked < 2.5
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    await asyncio.gather(*saving)
    await end(one)


@pytest.mark.parametrize(
    ("mode", "limits", "longest"),
    [
        ("delay", (5, 60), 5),
        ("delay", (1, 60), 1),
        ("session", (5, 60), 60),
        ("session", (5, 20), 20),
        ("delay", (0, 60), 0),
    ],
)
@in_virtual_time
async def test_one_that_hangs_is_not_waited_for_beyond_the_limit(
    tmp_path: Path, mode: str, limits: tuple[int, int], longest: int
) -> None:
    one = await product(tmp_path, delay=limits[0], session=limits[1])
    hanging = Participant(one, ALICE)
    await hanging.inhibit(mode)
    asked = await started(one)
    assert longest <= await first_step(one) - asked < longest + 0.5
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    assert (await hanging.job_properties())["WaitsUntil"] == 0
    await end(one)


@pytest.mark.parametrize("mode", ["delay", "session"])
@in_virtual_time
async def test_one_that_dies_releases_at_once(tmp_path: Path, mode: str) -> None:
    one = await product(tmp_path)
    dying = Participant(one, ALICE)
    await dying.inhibit(mode)
    asked = await started(one)
    asyncio.get_running_loop().call_later(1, dying.bus.drop)
    assert 1 <= await first_step(one) - asked < 1.5
    await end(one)


@in_virtual_time
async def test_each_is_waited_for_by_its_own_limit_and_all_at_the_same_time(tmp_path: Path) -> None:
    """A program that hangs does not get the time of the desktop, nor takes any of it."""
    one = await product(tmp_path)
    hanging, desktop = Participant(one, ALICE), Participant(one, ALICE)
    await hanging.inhibit("delay")
    cookie = await desktop.inhibit("session")
    asked = await started(one)
    await asyncio.sleep(8)
    assert not [signal for signal in one.signals if signal.member == "Progress"]
    await desktop.call("Uninhibit", "u", cookie)
    await one.idle()
    assert now() - asked > 8
    assert (await one.status(GPU))["state"] == "detached"
    await end(one)


@in_virtual_time
async def test_the_time_of_the_whole_job_covers_the_wait(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    hanging = Participant(one, ALICE)
    await hanging.inhibit("session")
    asked = now()
    with pytest.raises(RemoteError, match=r"the 10 s are over\. Nothing was changed") as caught:
        await one.handoff(GPU, timeout=Variant("u", 10))
    assert caught.value.name == "org.gpuhandoff.Error.TimedOut"
    assert now() - asked < 11
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_while_one_waits_another_card_comes_back(tmp_path: Path) -> None:
    one = await Product(await SCENARIOS["twin"](), tmp_path).start()
    await one.handoff(SECOND_GPU)
    hanging = Participant(one, ALICE)
    await hanging.inhibit("delay")
    waiting = asyncio.create_task(one.handoff(GPU))
    await asyncio.sleep(1)
    asked = now()
    await one.reclaim(SECOND_GPU)
    assert now() - asked < 3
    assert [signal.body[1] for signal in one.signals if signal.member == "PrepareForHandoff"][-2:] == [True, False]
    await waiting
    assert (await one.status(GPU))["state"] == "detached"
    await one.reclaim(GPU)
    await one.stop()


@in_virtual_time
async def test_who_comes_when_it_has_begun_is_not_waited_for(tmp_path: Path) -> None:
    one = await product(tmp_path)
    first, late = Participant(one, ALICE), Participant(one, ALICE)
    cookie = await first.inhibit("delay")
    asked = await started(one)
    await asyncio.sleep(1)
    await late.inhibit("delay")
    await first.call("Uninhibit", "u", cookie)
    assert await first_step(one) - asked < 1.5
    await end(one)


@in_virtual_time
async def test_what_a_job_waits_for_is_told_before_it_is_announced(tmp_path: Path) -> None:
    one = await product(tmp_path)
    desktop = Participant(one, ALICE)
    cookie = await desktop.inhibit("session")
    heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await desktop.hear(lambda: heard.set_result(None))
    await one.handoff(GPU, **CONSENT, vm=Variant("s", "win11"))
    await heard
    told = await desktop.job_properties()
    assert (told["Desktops"], told["Vm"], told["Cancelable"]) == (["alice"], "win11", True)
    assert 55e6 < told["WaitsUntil"] - told["StartTime"] < 65e6
    await desktop.call("Uninhibit", "u", cookie)
    await one.idle()
    told = await desktop.job_properties()
    assert (told["Desktops"], told["WaitsUntil"]) == (["alice"], 0)
    await end(one)


@pytest.mark.parametrize("mode", ["delay", "session"])
@in_virtual_time
async def test_a_cancel_in_the_countdown_leaves_the_host_untouched(tmp_path: Path, mode: str) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    desktop = Participant(one, ALICE)
    await desktop.inhibit(mode)
    await started(one)
    await asyncio.sleep(3)
    await desktop.on_job("Cancel")
    await one.idle()
    assert differences(before, one.machine.snapshot()) == []
    assert one.journals() == []
    told = await desktop.job_properties()
    assert (told["Result"], told["ErrorMessage"]) == ("cancelled", "The job was cancelled before anything was changed.")
    assert [signal.body[1] for signal in one.signals if signal.member == "PrepareForHandoff"] == [True, False]
    await one.stop()


@in_virtual_time
async def test_whose_desktop_would_end_objects_to_roots_handoff(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    desktop = Participant(one, ALICE)
    await desktop.inhibit("session")
    await started(one, uid=0)
    await asyncio.sleep(3)
    with pytest.raises(RemoteError) as caught:
        await desktop.on_job("Cancel")
    assert caught.value.name == DENIED
    await desktop.on_job("Object", "Kate asks whether to save.")
    await one.idle()
    assert differences(before, one.machine.snapshot()) == []
    told = await desktop.job_properties()
    expected = "alice, whose desktop would have ended, objects: Kate asks whether to save. Nothing was changed."
    assert (told["Result"], told["ErrorName"], told["ErrorMessage"]) == (
        "cancelled",
        "org.gpuhandoff.Error.Cancelled",
        expected,
    )
    (move,) = await one.call("History", "su", "", 0)
    assert (move["outcome"].value, move["message"].value) == ("cancelled", expected)
    await one.stop()


@pytest.mark.parametrize(
    ("uid", "mode", "error"),
    [
        (BOB, "session", DENIED),  # somebody else's desktop
        (BOB, "", DENIED),
        (0, "session", DENIED),  # root cancels, and has no desktop
        (ALICE, "", DENIED),  # any program of hers
        (ALICE, "delay", DENIED),
        (65534, "session", DENIED),  # in no session
    ],
)
@in_virtual_time
async def test_nobody_else_can_object(tmp_path: Path, uid: int, mode: str, error: str) -> None:
    one = await product(tmp_path)
    desktop, other = Participant(one, ALICE), Participant(one, uid)
    await desktop.inhibit("session")
    if mode:
        await other.inhibit(mode)
    await started(one, uid=0)
    await asyncio.sleep(3)
    with pytest.raises(RemoteError) as caught:
        await other.on_job("Object", "no")
    assert caught.value.name == error
    assert (await desktop.job_properties())["Result"] == ""
    desktop.bus.drop()
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    await end(one)


@in_virtual_time
async def test_it_is_too_late_when_the_wait_is_over(tmp_path: Path) -> None:
    """The inhibitor of a desktop that was asked, and of one that was not: it came when the wait had begun."""
    one = await product(tmp_path, session=10)
    desktop, late = Participant(one, ALICE), Participant(one, ALICE)
    await desktop.inhibit("session")
    await started(one, uid=0)
    await asyncio.sleep(5)
    await late.inhibit("session")
    with pytest.raises(RemoteError, match="does not wait for you") as caught:
        await late.on_job("Object", "no")
    assert caught.value.name == LATE
    await asyncio.sleep(5.5)
    assert (await one.status(GPU))["state"] == "handing-off"
    for who in (desktop, late):
        with pytest.raises(RemoteError, match="does not wait for you") as caught:
            await who.on_job("Object", "no")
        assert caught.value.name == LATE
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    await end(one)


@in_virtual_time
async def test_the_administrator_can_have_nobody_asked(tmp_path: Path) -> None:
    one = await product(tmp_path, session=0)
    desktop = Participant(one, ALICE)
    await desktop.inhibit("session")
    asked = await started(one, uid=0)
    assert await first_step(one) - asked < 0.5
    with pytest.raises(RemoteError) as caught:
        await desktop.on_job("Object", "no")
    assert caught.value.name == LATE
    await end(one)


@in_virtual_time
async def test_whoever_may_not_inhibit_may_not_object(tmp_path: Path) -> None:
    one = await product(tmp_path)
    one.machine.polkit.deny(names.ACTION_INHIBIT)
    desktop = Participant(one, ALICE)
    with pytest.raises(RemoteError) as caught:
        await desktop.inhibit("session")
    assert caught.value.name == DENIED
    asked = await started(one, uid=0)
    assert await first_step(one) - asked < 0.5
    await end(one)


@in_virtual_time
async def test_a_handoff_that_ends_no_desktop_of_theirs_does_not_wait_for_it(tmp_path: Path) -> None:
    one = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
    desktop = Participant(one, ALICE)
    await desktop.inhibit("session")
    asked = now()
    await one.call("Handoff", "sa{sv}", GPU, {})
    assert now() - asked < 5
    assert (await desktop.job_properties())["Desktops"] == []
    with pytest.raises(RemoteError) as caught:
        await desktop.on_job("Object", "no")
    assert caught.value.name == DENIED
    await end(one)


@in_virtual_time
async def test_a_flood_of_inhibitors_and_objections_holds_nothing_up_for_longer(tmp_path: Path) -> None:
    one = await product(tmp_path, session=20)
    crowd = [Participant(one, ALICE) for _ in range(40)]
    taken = await asyncio.gather(*(who.inhibit("session") for who in crowd), return_exceptions=True)
    refused = [error.name for error in taken if isinstance(error, RemoteError)]
    assert refused == ["org.freedesktop.DBus.Error.LimitsExceeded"] * (len(crowd) - 32)
    asked = await started(one, uid=0)

    async def again(who: Participant) -> None:
        for _ in range(10):
            for kind in ("delay", "session"):
                await asyncio.gather(who.inhibit(kind), return_exceptions=True)
            await asyncio.sleep(1)

    flood = [asyncio.create_task(again(who)) for who in crowd]
    assert 20 <= await first_step(one) - asked < 20.5
    answers = await asyncio.gather(*(crowd[0].on_job("Object", "no") for _ in range(200)), return_exceptions=True)
    assert {getattr(answer, "name", "") for answer in answers} <= {LATE, "org.freedesktop.DBus.Error.LimitsExceeded"}
    await asyncio.gather(*flood)
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    for who in crowd:
        who.bus.drop()
    await end(one)


@in_virtual_time
async def test_of_many_objections_the_first_counts(tmp_path: Path) -> None:
    one = await product(tmp_path)
    desktop = Participant(one, ALICE)
    await desktop.inhibit("session")
    await started(one, uid=0)
    await asyncio.sleep(1)
    answers = await asyncio.gather(*(desktop.on_job("Object", f"no {n}") for n in range(20)), return_exceptions=True)
    assert [getattr(answer, "name", "") for answer in answers] == ["", *(LATE,) * 19]
    await one.idle()
    assert "objects: no 0. Nothing" in (await desktop.job_properties())["ErrorMessage"]
    await one.stop()


@pytest.mark.parametrize("why", ["", "x" * 201, "a\nb", "\x1b[2J"])
@in_virtual_time
async def test_a_reason_is_something_that_people_can_be_shown(tmp_path: Path, why: str) -> None:
    one = await product(tmp_path)
    desktop = Participant(one, ALICE)
    await desktop.inhibit("session")
    await started(one, uid=0)
    await asyncio.sleep(1)
    with pytest.raises(RemoteError, match="why: 1 to 200 printable characters") as caught:
        await desktop.on_job("Object", why)
    assert caught.value.name == "org.freedesktop.DBus.Error.InvalidArgs"
    await desktop.on_job("Object", "no")
    await end(one)


@in_virtual_time
async def test_a_block_that_is_taken_meanwhile_refuses(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    hanging, renderer = Participant(one, ALICE), Participant(one, ALICE)
    await hanging.inhibit("delay")
    await started(one)
    await asyncio.sleep(1)
    await renderer.inhibit("block")
    await one.idle()
    told = await hanging.job_properties()
    assert (told["Result"], told["ErrorName"]) == ("failed", "org.gpuhandoff.Error.Inhibited")
    assert told["ErrorMessage"] == "Editor does not want the GPU handed off now: it saves."
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_who_logs_in_meanwhile_is_not_part_of_what_was_allowed(tmp_path: Path) -> None:
    one = await product(tmp_path)
    hanging = Participant(one, ALICE)
    await hanging.inhibit("delay")
    await started(one)
    await asyncio.sleep(1)
    manager = one.machine.units.find("display-manager.service")
    assert manager is not None
    assert manager.main is not None
    login = Login("bob", BOB, "kwin_wayland", (GPU,))
    await one.machine.sessions.open(login, manager.main, one.machine.display_nodes((GPU,)))
    before = {key: value for key, value in one.machine.snapshot().items() if key != "inhibitors"}
    await one.idle()
    told = await hanging.job_properties()
    assert (told["Result"], told["ErrorName"]) == ("failed", "org.gpuhandoff.Error.NeedsConsent")
    after = {key: value for key, value in one.machine.snapshot().items() if key != "inhibitors"}  # of sleep, while it ran
    assert differences(before, after) == []
    await one.stop()


@in_virtual_time
async def test_a_desktop_that_ends_by_itself_is_gone_when_the_display_manager_is_stopped(tmp_path: Path) -> None:
    one = await product(tmp_path)
    desktop = Participant(one, ALICE)
    await desktop.inhibit("session")
    (session,) = [session for session in one.machine.sessions.sessions.values() if session.login.uid == ALICE]
    await started(one, uid=0)
    await asyncio.sleep(1)
    await one.machine.sessions.terminate(session)
    await asyncio.sleep(1)
    desktop.bus.drop()
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    await end(one)


@in_virtual_time
async def test_a_greeter_that_comes_in_the_last_moment_ends_as_well(tmp_path: Path) -> None:
    """Display managers show one a moment after a desktop has ended: the plan may have been made in between."""
    one = await product(tmp_path)
    machine = one.machine

    async def greet(perform: Perform) -> Any:
        manager = machine.units.find("display-manager.service")
        assert manager is not None
        assert manager.main is not None
        late = Login("gdm", 120, "gnome-shell", (GPU,), kind="greeter", ends=Compositor.SURVIVES)
        await machine.sessions.open(late, manager.main, machine.display_nodes((GPU,)))
        return await perform()

    machine.sessions.user_stop_delay = 3600.0
    machine.faults.set(greet, kind="load-module")
    await started(one)
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    await end(one)


@in_virtual_time
async def test_who_has_heard_the_beginning_hears_from_the_next_daemon_that_it_is_over(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await started(one)
    await first_step(one)
    await asyncio.sleep(0.5)
    one.kill()
    await one.start_daemon()
    assert [signal.body[1] for signal in one.signals if signal.member == "PrepareForHandoff"] == [True, False]
    await end(one)
