"""How Plasma and GNOME are asked to end, and to stay after all: with unsaved changes, answered late, asked twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff_session.desktops import Plasma
from gpuhandoff_session.events import Event
from tests.support.desk import desk, ended
from tests.support.desktops import FakeGnome, FakePlasma
from tests.support.participants import ALICE, now, started
from tests.support.wire import Wire


@in_virtual_time
async def test_it_is_there_for_the_next_handoff_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(tmp_path) as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        monkeypatch.setattr("gpuhandoff_session.desktops.os.kill", lambda *_: plasma.kill_helper())
        for job in (1, 2):
            await started(one.product, uid=0)
            await one.notifications.until("ends now")
            one.notifications.press("cancel")
            assert (await ended(one, job))[0] == "cancelled"
            await one.notifications.until("stays here")
            one.notifications.shown.clear()
            assert plasma.resets == job


@in_virtual_time
async def test_unsaved_changes_that_nobody_answers_for_refuse_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plasma itself would log out in spite of them, two minutes later."""
    async with desk(tmp_path) as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        plasma.asks = True
        signals: list[tuple[int, int]] = []

        def kill(pid: int, number: int) -> None:
            signals.append((pid, number))
            plasma.kill_helper()

        monkeypatch.setattr("gpuhandoff_session.desktops.os.kill", kill)
        before = one.product.machine.snapshot()
        await started(one.product, uid=0)
        result, why = await ended(one)
        assert result == "cancelled"
        assert "objects: programs do not close, perhaps they ask about unsaved changes, and nobody has answered." in why
        assert differences(before, one.product.machine.snapshot()) == []
        await asyncio.sleep(300)
        assert (signals, plasma.resets, plasma.programs) == ([(4242, 15)], 1, ["firefox"])
        assert plasma.target == "active"


@pytest.mark.parametrize("close", [True, False])
@in_virtual_time
async def test_the_answer_to_an_unsaved_changes_dialog_decides(tmp_path: Path, *, close: bool) -> None:
    async with desk(tmp_path) as one:
        plasma = await one.log_in("plasma")
        assert isinstance(plasma, FakePlasma)
        plasma.asks = True
        asked = await started(one.product, uid=0)
        await one.notifications.until("ends now")
        await asyncio.sleep(10)
        plasma.answer.set_result(close)
        result, why = await ended(one)
        assert (result, now() - asked < 40) == ("done" if close else "cancelled", True)
        assert close or "objects: the desktop was told to stay." in why


@pytest.mark.parametrize(("kind", "when"), [("plasma", 0.0), ("plasma", 0.3), ("gnome", 0.0)])
@in_virtual_time
async def test_a_cancel_while_the_desktop_is_still_being_asked_ends_it_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, when: float
) -> None:
    """Right after the countdown: while it is looked for, or while the bus still starts what logs out."""
    async with desk(tmp_path) as one:
        desktop = await one.log_in(kind)
        assert desktop is not None
        desktop.slow = 0.2
        if isinstance(desktop, FakePlasma):
            monkeypatch.setattr("gpuhandoff_session.desktops.os.kill", lambda *_: desktop.kill_helper())
        await started(one.product, uid=0)
        await one.notifications.until("ends now")
        await asyncio.sleep(when)
        one.notifications.press("cancel")
        assert (await ended(one))[0] == "cancelled"
        await asyncio.sleep(300)
        assert one.ended_at == 0.0


@pytest.mark.parametrize("answers", [True, False])
@in_virtual_time
async def test_a_program_of_gnomes_that_wants_the_session_to_stay_is_named(tmp_path: Path, *, answers: bool) -> None:
    async with desk(tmp_path) as one:
        gnome = await one.log_in("gnome")
        assert isinstance(gnome, FakeGnome)
        gnome.inhibitors = {
            "/org/gnome/SessionManager/Inhibitor1": ("org.gnome.TextEditor", "There are unsaved changes", 1),
            "/org/gnome/SessionManager/Inhibitor2": ("org.gnome.Totem", "A film is playing", 4),
        }
        await started(one.product, uid=0)
        notice = await one.notifications.until("Something keeps your desktop from ending")
        assert notice.body.startswith("TextEditor: There are unsaved changes. Answer there")
        assert gnome.modes == []
        if answers:
            gnome.release("/org/gnome/SessionManager/Inhibitor1")
        result, why = await ended(one)
        assert (result, gnome.modes) == (("done", [1]) if answers else ("cancelled", []))
        assert answers or "objects: TextEditor: There are unsaved changes, and nobody has answered." in why


@in_virtual_time
async def test_a_second_logout_waits_for_the_end_of_what_the_first_had_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """plasma-shutdown that was told to end would take the call, and do nothing any more."""
    broker, ended, reported = LoopbackBroker(), asyncio.Event(), list[Event]()
    wire = Wire(broker, ALICE)
    there = await FakePlasma(broker, ended.set).start(wire)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("gpuhandoff_session.desktops.os.kill", lambda *_: loop.call_later(1.0, there.kill_helper))
    plasma = Plasma(wire.connection, reported.append)
    await plasma.leave()
    await plasma.stay()
    await plasma.leave()
    await asyncio.wait_for(ended.wait(), 60)
    assert (there.logouts, there.resets, reported) == (2, 1, [])
