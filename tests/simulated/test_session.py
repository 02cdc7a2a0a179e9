"""gpuhandoff-session before the real daemon: a desktop is warned, ends by itself, or stays, and is told how it went."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.messages import Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.snapshot import differences
from tests.support.desk import desk, ended
from tests.support.desktops import FakeGnome, FakePlasma
from tests.support.participants import GPU, Participant, first_step, started


@pytest.mark.parametrize(("kind", "takes"), [("plasma", 6), ("gnome", 1)])
@in_virtual_time
async def test_a_desktop_is_warned_ends_by_itself_and_only_then_is_the_display_manager_stopped(
    tmp_path: Path, kind: str, takes: float
) -> None:
    async with desk(tmp_path) as one:
        desktop = await one.log_in(kind)
        asked = await started(one.product, uid=0)
        warning = await one.notifications.until("ends in 15 seconds")
        assert "What ends: Firefox" in warning.body
        assert warning.buttons == ("cancel", "Cancel", "go-on", "End it now")
        begun = await first_step(one.product)
        assert begun - asked > 15 + takes
        assert 0 < one.ended_at <= begun
        assert await ended(one) == ("done", "")
        if isinstance(desktop, FakePlasma):
            assert (desktop.logouts, desktop.remembered) == (1, ["firefox", "kate"])
        if isinstance(desktop, FakeGnome):
            assert desktop.modes == [1]
        assert len({shown.id for shown in one.notifications.shown}) == 1


@in_virtual_time
async def test_a_persons_cancel_in_the_countdown_leaves_the_host_untouched(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        plasma = await one.log_in("plasma")
        before = one.product.machine.snapshot()
        await started(one.product, uid=0)
        await one.notifications.until("ends in 5 seconds")
        one.notifications.press("cancel", notice=99)  # somebody else's
        one.notifications.press("cancel")
        reason = "alice, whose desktop would have ended, objects: it was cancelled in the countdown. Nothing was changed."
        assert await ended(one) == ("cancelled", reason)
        assert differences(before, one.product.machine.snapshot()) == []
        assert one.product.journals() == []
        assert isinstance(plasma, FakePlasma)
        assert plasma.logouts == 0
        await one.notifications.until("stays here")


@pytest.mark.parametrize("end", ["cancelled", "killed"])
@in_virtual_time
async def test_a_handoff_that_ends_while_we_still_ask_about_it_ends_no_desktop(tmp_path: Path, end: str) -> None:
    async with desk(tmp_path) as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        one.notifications.hangs = True  # for as long as the program waits to know what can be shown
        asker = Participant(one.product, 0)
        await started(one.product, uid=0)
        await asyncio.sleep(1)
        if end == "killed":
            one.product.kill()
        else:
            await asker.on_job("Cancel")
        await asyncio.sleep(300)
        assert plasma.logouts == 0
        if end == "killed":
            await one.product.start_daemon()


@pytest.mark.parametrize("what", ["no desktop that we know", "a desktop that does not answer", "killed", "no notifications"])
@in_virtual_time
async def test_where_it_cannot_help_the_daemon_goes_on_as_without_it(tmp_path: Path, what: str) -> None:
    async with desk(tmp_path) as one:
        desktop = await one.log_in("" if "know" in what else "plasma", notifications=what != "no notifications")
        if isinstance(desktop, FakePlasma):
            desktop.hangs = "answer" in what
        asked = await started(one.product, uid=0)
        if what == "killed":
            await asyncio.sleep(3)
            one.kill()
        begun = await first_step(one.product) - asked
        longest = {"no desktop that we know": 16, "a desktop that does not answer": 36, "killed": 4, "no notifications": 12}
        assert begun < longest[what]
        assert (await ended(one))[0] == "done"


@in_virtual_time
async def test_without_it_nobody_waits(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        asked = await started(one.product, uid=0)
        assert await first_step(one.product) - asked < 0.5


@in_virtual_time
async def test_a_handoff_that_ends_no_desktop_says_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path, "igpu-dgpu") as one:
        await one.log_in("plasma")
        await one.product.call("Handoff", "sa{sv}", GPU, {})
        await one.product.reclaim(GPU)
        assert one.notifications.shown == []


@in_virtual_time
async def test_a_daemon_that_was_replaced_asks_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        await one.product.stop()
        await one.product.start_daemon()
        await asyncio.sleep(1)
        await started(one.product, uid=0)
        await one.notifications.until("ends in 5 seconds")
        one.notifications.press("go-on")
        assert (await ended(one))[0] == "done"


@in_virtual_time
async def test_names_that_look_like_markup_are_text(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        await one.product.handoff(GPU, vm=Variant("s", "<b>win</b>"), wait=Variant("b", False))
        assert "goes to &lt;b&gt;win&lt;/b&gt;," in (await one.notifications.until("ends in")).body
