"""Objections: who may stop a handoff while nothing has been touched yet, and who not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff import names
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.snapshot import differences
from tests.support.participants import ALICE, BOB, DENIED, GPU, LATE, Participant, end, first_step, product, started


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
