"""gpuhandoff-session before the real daemon: a desktop is warned, ends by itself, or stays, and is told how it went."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import refuse
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.sessions import SimulatedSession
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff_session.memory import Memory
from gpuhandoff_session.service import Session, Setting
from tests.support.desktops import FakeGnome, FakeNotifications, FakePlasma, Wire
from tests.support.participants import ALICE, GPU, Participant, first_step, now, started
from tests.support.product import Product

DESKTOPS: dict[str, type[FakePlasma | FakeGnome]] = {"plasma": FakePlasma, "gnome": FakeGnome}


class Desk:
    """Alice's desktop with its program, on the machine whose daemon may end it."""

    def __init__(self, product: Product, directory: Path) -> None:
        self.product = product
        self.memory = Memory(directory / "state/session.json")
        self.broker = LoopbackBroker()
        self.notifications = FakeNotifications(self.broker.connect(uid=ALICE))
        self.ended_at = 0.0
        self._wires: list[Wire] = []
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[bool] | None = None
        self._later: list[asyncio.Task[None]] = []
        product.machine.sessions.on_removed.append(self._removed)

    async def log_in(self, kind: str = "", *, notifications: bool = True) -> FakePlasma | FakeGnome | None:
        """Begin a session, with the program that answers for it."""
        self.broker = LoopbackBroker()
        if notifications:
            self.notifications = await FakeNotifications.start(self.broker.connect(uid=ALICE))
        system, session = self._wires = [Wire(one, ALICE) for one in (self.product.broker, self.broker)]
        desktop = await DESKTOPS[kind](self.broker, self.end).start(session) if kind else None
        self._stopping = asyncio.Event()
        setting = Setting(system.connection, session.connection, self.memory, "alice", 15.0)
        self._running = asyncio.create_task(self._run(Session(setting)))
        await asyncio.sleep(1)
        return desktop

    def end(self) -> None:
        """graphical-session.target stops, and with it the program; a moment later the session has ended."""
        self._stopping.set()
        self._later.append(asyncio.create_task(self._end()))

    def kill(self) -> None:
        """The program dies."""
        for wire in self._wires:
            wire.cut()

    async def log_out(self) -> None:
        """Have the program end, and be gone."""
        self._stopping.set()
        if self._running is not None:
            await self._running

    def _removed(self, session: SimulatedSession) -> None:
        if session.login.uid == ALICE:
            self.ended_at = now()

    async def _run(self, session: Session) -> bool:
        try:
            return await session.run(self._stopping)
        finally:
            self.kill()

    async def _end(self) -> None:
        await asyncio.sleep(1)
        sessions = self.product.machine.sessions
        for session in list(sessions.sessions.values()):
            if session.login.uid == ALICE:
                await sessions.terminate(session)


@asynccontextmanager
async def desk(directory: Path, scenario: str = "single-nvidia") -> AsyncIterator[Desk]:
    settings = Configuration(HostSettings())
    product = await Product(await SCENARIOS[scenario](), directory / "run", settings, directory / "state").start()
    one = Desk(product, directory)
    yield one
    await one.log_out()
    await product.idle()
    if (await product.status(GPU))["state"] != "host":
        await product.reclaim(GPU)
    await product.stop()


async def ended(one: Desk, job: int = 1) -> tuple[str, str]:
    """Return how the job ended."""
    await one.product.idle()
    who = Participant(one.product, 0)
    who.job = f"/org/gpuhandoff/jobs/{job}"
    told = await who.job_properties()
    return told["Result"], told["ErrorMessage"]


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
async def test_a_notification_server_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        one.notifications.hangs = True
        asked = await started(one.product, uid=0)
        assert await first_step(one.product) - asked < 14
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
async def test_at_the_next_login_it_tells_how_it_went(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.log_in("plasma")
        assert one.notifications.shown == []
        await one.product.handoff(GPU, vm=Variant("s", "win11"))
        one.product.machine.start_guest(GPU)
        await asyncio.sleep(600)
        one.product.machine.stop_guest(GPU)
        await one.product.reclaim(GPU)
        for expected in (["GeForce RTX 4070 is back"], []):  # once
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
