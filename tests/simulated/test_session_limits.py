"""gpuhandoff-session beside others: other limits than its own, two handoffs at a time, a no that comes too late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.config import HostSettings
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import SECOND_GPU
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff_session.daemon import Daemon
from tests.support.desk import desk, ended
from tests.support.desktops import FakePlasma
from tests.support.participants import ALICE, CONSENT, GPU, Participant, first_step, started
from tests.support.wire import Wire


@in_virtual_time
async def test_unsaved_changes_are_not_lost_where_programs_may_take_longer_than_desktops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, host=HostSettings(inhibit_delay=300)) as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        monkeypatch.setattr("gpuhandoff_session.desktops.os.kill", lambda *_: plasma.kill_helper())
        plasma.asks = True
        before = one.product.machine.snapshot()
        await Participant(one.product, ALICE).inhibit("delay")
        await started(one.product, uid=0)
        result, why = await ended(one)
        assert result == "cancelled"
        assert "programs do not close" in why
        await asyncio.sleep(1)
        assert (plasma.resets, one.ended_at) == (1, 0)
        assert differences(before, one.product.machine.snapshot()) == []


@in_virtual_time
async def test_a_desktop_that_nobody_waits_for_is_not_asked_to_end(tmp_path: Path) -> None:
    async with desk(tmp_path, host=HostSettings(session_delay=0)) as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        await Participant(one.product, ALICE).inhibit("delay")
        asked = await started(one.product, uid=0)
        assert 5 <= await first_step(one.product) - asked < 6
        assert (plasma.logouts, one.notifications.shown) == (0, [])
        assert (await ended(one))[0] == "done"


@in_virtual_time
async def test_a_desktop_on_two_cards_that_are_both_wanted_has_one_answer_for_both(tmp_path: Path) -> None:
    async with desk(tmp_path, "twin") as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        for compositor in one.product.machine.processes.named("kwin_wayland"):
            for node in ("/dev/dri/card1", "/dev/nvidia1"):
                assert one.product.machine.processes.open(compositor, node)
        before = one.product.machine.snapshot()
        for gpu in (GPU, SECOND_GPU):
            await Participant(one.product, 0).call("Handoff", "sa{sv}", gpu, CONSENT)
        warning = await one.notifications.until("ends in 10")
        cards = " and ".join(["GeForce RTX 3060 Lite Hash Rate"] * 2)
        assert warning.body.startswith(f"{cards} go to a virtual machine, and they show this desktop.")
        one.notifications.press("cancel")
        for job in (1, 2):
            assert (await ended(one, job))[0] == "cancelled"
        await asyncio.sleep(300)
        assert (plasma.logouts, one.ended_at) == (0, 0)
        assert differences(before, one.product.machine.snapshot()) == []


@in_virtual_time
async def test_who_cancels_too_late_is_told(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        await started(one.product, uid=0)
        await one.notifications.until("ends in 15")
        assert one.product.daemon is not None
        job = one.product.daemon.jobs.running(PciAddress.parse(GPU))
        assert job is not None
        job.asked = ()  # the daemon waits no longer, and it is not known here yet
        one.notifications.press("cancel")
        late = await one.notifications.until("could not be cancelled")
        assert late.body == "GeForce RTX 4070 goes to a virtual machine, and your desktop ends."
        assert late.urgency == 2


@in_virtual_time
async def test_two_inhibits_at_once_are_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        daemon = Daemon(Wire(one.product.broker, ALICE).connection)
        await asyncio.gather(daemon.inhibit(), daemon.inhibit())
        await daemon.release()
        asked = await started(one.product, uid=0)
        assert await first_step(one.product) - asked < 0.5


@pytest.mark.parametrize("desktops", [60, 20, 0])
@in_virtual_time
async def test_until_when_desktops_are_waited_for_is_told_beside_the_whole(tmp_path: Path, desktops: int) -> None:
    async with desk(tmp_path, host=HostSettings(inhibit_delay=30, session_delay=desktops or 60)) as one:
        if desktops:
            await one.log_in("plasma")
        editor = Participant(one.product, ALICE)
        await editor.inhibit("delay")
        await started(one.product, uid=0)
        await asyncio.sleep(1)
        told = await editor.job_properties()
        assert told["WaitsUntil"] - told["StartTime"] == pytest.approx(max(desktops, 30) * 1e6, rel=0.1)
        if desktops:
            assert told["DesktopsUntil"] - told["StartTime"] == pytest.approx(desktops * 1e6, rel=0.1)
            one.notifications.press("cancel")
        else:
            assert told["DesktopsUntil"] == 0
        await one.product.idle()
        assert (await editor.job_properties())["DesktopsUntil"] == 0
