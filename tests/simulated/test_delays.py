"""Delays: who is waited for, and for how long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import SCENARIOS, SECOND_GPU
from gpuhandoff.simulation.snapshot import differences
from tests.support.participants import ALICE, CONSENT, DENIED, GPU, LATE, Participant, end, first_step, now, product, started
from tests.support.product import Product


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
