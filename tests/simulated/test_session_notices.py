"""What gpuhandoff-session shows, and when nobody can see it: servers that come late, are busy, or answer strangely."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Reply, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import refuse
from tests.support.desk import Desk, desk, ended
from tests.support.desktops import FakePlasma
from tests.support.participants import GPU, Participant, first_step, now, started

BACK = ["GeForce RTX 4070 is back"]


async def lent_for_a_while(one: Desk) -> None:
    """End alice's desktop for a guest that comes and goes."""
    await one.log_in("plasma")
    assert one.notifications.shown == []
    await one.product.handoff(GPU, vm=Variant("s", "win11"))
    one.product.machine.start_guest(GPU)
    await asyncio.sleep(600)
    one.product.machine.stop_guest(GPU)
    await one.product.reclaim(GPU)


@in_virtual_time
async def test_at_the_next_login_it_tells_how_it_went(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await lent_for_a_while(one)
        for expected in (BACK, []):  # once
            await one.log_in("plasma")
            assert one.notifications.titles == expected
            await one.log_out()


@in_virtual_time
async def test_at_the_next_login_it_tells_why_the_virtual_machine_did_not_start(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        one.product.machine.faults.set(refuse(errno.EIO), kind="write", target="power/control")
        with pytest.raises(RemoteError) as caught:
            await one.product.handoff(GPU, vm=Variant("s", "win11"))
        await one.log_in("plasma")
        (shown,) = one.notifications.shown
        assert shown.title == "win11 did not start: it did not get GeForce RTX 4070"
        assert caught.value.message in shown.body


@pytest.mark.parametrize("late", [4.0, 200.0])
@in_virtual_time
async def test_it_is_started_before_the_desktop_and_tells_when_that_can_show_something(tmp_path: Path, late: float) -> None:
    async with desk(tmp_path) as one:
        await lent_for_a_while(one)
        await one.log_in("plasma", notifications=False)
        await asyncio.sleep(late)
        await one.start_notifications()
        await asyncio.sleep(1)
        assert one.notifications.titles == BACK


@in_virtual_time
async def test_the_bus_starts_a_server_only_where_none_has_come_by_itself(tmp_path: Path) -> None:
    """Early in a login it would be another desktop's, which then keeps the right one from its name."""
    async with desk(tmp_path) as one:
        await lent_for_a_while(one)
        before = one.notifications
        await one.log_in("plasma", notifications=False, activatable=True)
        await asyncio.sleep(20)
        assert one.notifications is before
        await asyncio.sleep(20)
        assert one.notifications.titles == BACK


@in_virtual_time
async def test_a_server_that_is_busy_shows_the_countdown_when_it_can(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        one.notifications.hangs = True
        asked = await started(one.product, uid=0)
        await asyncio.sleep(6)
        one.notifications.go_on()
        await one.notifications.until("Your desktop ends in 5 seconds")
        assert now() - asked < 15
        assert plasma.logouts == 0
        one.notifications.press("cancel")
        assert (await ended(one))[0] == "cancelled"


@pytest.mark.parametrize("answers", [None, Reply(), Reply("s", ("what?",))], ids=["none", "empty", "nonsense"])
@in_virtual_time
async def test_a_server_that_answers_nothing_of_use_holds_nothing_up(tmp_path: Path, answers: Reply | None) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        one.notifications.hangs = answers is None
        one.notifications.answers = answers
        asked = await started(one.product, uid=0)
        assert await first_step(one.product) - asked < 30
        assert one.ended_at > 0
        assert (await ended(one))[0] == "done"


@in_virtual_time
async def test_after_a_strange_answer_the_next_notice_is_shown(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        await started(one.product, uid=0)
        await one.notifications.until("ends in 15")
        one.notifications.answers = Reply("s", ("what?",))
        await asyncio.sleep(6)
        one.notifications.answers = None
        await one.notifications.until("ends in 4")
        one.notifications.press("cancel")
        assert (await ended(one))[0] == "cancelled"


@pytest.mark.parametrize("risk", ["a card that may not come back", "a program that has it open"])
@in_virtual_time
async def test_what_ends_is_named_where_more_than_the_desktop_was_allowed_to(tmp_path: Path, risk: str) -> None:
    async with desk(tmp_path, "blackwell" if "card" in risk else "single-nvidia") as one:
        machine = one.product.machine
        options = {"stop-display": Variant("b", True), "accept-risk": Variant("b", True)}
        if "card" in risk:  # one that has been with a guest since the machine was started
            await one.product.call("Handoff", "sa{sv}", GPU, options)
            machine.start_guest(GPU)
            await asyncio.sleep(60)
            machine.stop_guest(GPU)
            await one.product.reclaim(GPU)
        else:
            machine.processes.spawn("ollama", opens=["/dev/nvidia0"])
            options["holders"] = Variant("s", "terminate")
        await one.log_in("plasma")
        await Participant(one.product, 0).call("Handoff", "sa{sv}", GPU, {**options, "wait": Variant("b", False)})
        warning = await one.notifications.until("ends in 15")
        assert f"What ends: Firefox{'' if 'card' in risk else ' and Ollama'}." in warning.body
        one.notifications.press("cancel")
        await one.product.idle()
