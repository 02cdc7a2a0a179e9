"""What happens on the machine while a handoff waits: it is looked at again before anything is touched."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.messages import RemoteError
from gpuhandoff.service.chronicle import Chronicle
from gpuhandoff.service.jobs import Job
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Perform
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.sessions import Compositor, Login
from gpuhandoff.simulation.snapshot import differences
from tests.support.participants import ALICE, BOB, GPU, Participant, end, first_step, product, started
from tests.support.product import Product


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


@in_virtual_time
async def test_a_guest_that_comes_before_a_reclaim_has_touched_anything_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
    await one.handoff(GPU)
    noting = Chronicle.begin

    async def begin(self: Chronicle, job: Job) -> None:
        await noting(self, job)
        one.machine.start_guest(GPU)

    monkeypatch.setattr(Chronicle, "begin", begin)
    with pytest.raises(RemoteError, match="A virtual machine still has the GPU: qemu-system-x86") as caught:
        await one.reclaim(GPU)
    assert caught.value.name.endswith(".InUse")
    monkeypatch.undo()
    await asyncio.sleep(1)
    assert (await one.status(GPU))["state"] == "guest"
    assert len(one.machine.snapshot()["inhibitors"]) == 1
    one.machine.stop_guest(GPU)
    await one.reclaim(GPU)
    await one.stop()
