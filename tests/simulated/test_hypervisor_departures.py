"""Somebody goes in the middle: the hook that waits, the daemon, a guest that starts again at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.messages import Variant
from gpuhandoff.service.hypervisor import GUEST_TIMEOUT, Hypervisor
from gpuhandoff.simulation.clock import in_virtual_time
from tests.support.hypervisor_events import GPU, ended, event, moves, product, refused, state, unchanged


@in_virtual_time
async def test_a_guest_that_starts_again_at_once_is_not_overtaken_by_the_grace_of_the_last(tmp_path: Path) -> None:
    """The last end was told by nobody; ten seconds after it the daemon would take the card back."""
    one = await product(tmp_path)
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.machine.stop_guest(GPU)
    await asyncio.sleep(9)
    await event(one, "prepare")
    await asyncio.sleep(60)  # QEMU is slow to come
    assert await state(one) == "detached"
    one.machine.start_guest(GPU)
    await event(one, "started")
    await asyncio.sleep(1000)
    assert await state(one) == "guest"
    assert moves(one) == ["done"]
    await one.stop()


@in_virtual_time
async def test_and_is_missed_when_it_does_not_come(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    await asyncio.sleep(200)
    await event(one, "prepare")
    await asyncio.sleep(GUEST_TIMEOUT - 100)
    assert await state(one) == "detached"
    await asyncio.sleep(200)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_start_during_the_way_back_waits_for_it(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    back = asyncio.create_task(event(one, "release"))
    await asyncio.sleep(0.1)
    assert await state(one) == "reclaiming"
    await event(one, "prepare")
    await back
    assert await state(one) == "detached"
    await ended(one)
    unchanged(one, before)
    assert moves(one) == ["done"] * 4
    await one.stop()


@pytest.mark.parametrize("what", ["another guest", "a machine of its own"])
@in_virtual_time
async def test_what_comes_while_a_rom_is_read_is_not_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """By then the GPU had been found free; it is asked for once more before anything moves."""
    one = await product(tmp_path)
    before = one.machine.snapshot()

    async def overtaken(hypervisor: Hypervisor, *_: object) -> None:
        monkeypatch.undo()
        if what == "another guest":
            await event(one, "prepare", guest="win10")
        else:
            await one.handoff(GPU, **{"stop-display": Variant("b", True)})
            one.machine.start_guest(GPU)
            await event(one, "started", guest="plain")

    monkeypatch.setattr(Hypervisor, "_refuse_rom", overtaken)
    said = await refused(one)
    assert ("is lent to win10" if what == "another guest" else "is with a virtual machine") in said
    assert moves(one)[-1] == "done"
    if what == "another guest":
        await ended(one, "win10")
    else:
        one.machine.stop_guest(GPU)
        await one.reclaim(GPU)
    unchanged(one, before)
    await one.stop()


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.5, 1.0, 2.0, 4.0])
def test_who_leaves_during_prepare_cancels_it(moment: float, tmp_path: Path) -> None:
    @in_virtual_time
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        hook = one.broker.connect(uid=0)
        preparing = asyncio.create_task(event(one, "prepare", caller=hook))
        await asyncio.sleep(moment)
        finished = preparing.done()
        await hook.close()
        await asyncio.sleep(1)
        await one.idle()
        await asyncio.gather(preparing, return_exceptions=True)
        if finished:
            await ended(one)
        unchanged(one, before)
        assert set(moves(one)) <= ({"done"} if finished else {"cancelled"})
        await one.stop()

    main()


@in_virtual_time
async def test_who_leaves_when_it_is_too_late_to_cancel_leaves_no_gpu_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    monkeypatch.setattr(one.jobs, "cancel", lambda job: None)
    hook = one.broker.connect(uid=0)
    preparing = asyncio.create_task(event(one, "prepare", caller=hook))
    await asyncio.sleep(0.5)
    await hook.close()
    await asyncio.gather(preparing, return_exceptions=True)
    await asyncio.sleep(100)
    unchanged(one, before)
    assert moves(one) == ["done", "done"]
    await one.stop()


@in_virtual_time
async def test_a_daemon_that_is_killed_meanwhile_knows_whose_the_gpu_is(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.kill()
    await one.start_daemon()
    await event(one, "reconnect")
    assert (await one.status(GPU))["vm"] == "win11"
    assert await state(one) == "guest"
    assert "is lent to win11" in await refused(one, guest="win10")
    one.machine.stop_guest(GPU)
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_running_guest_is_never_torn_from_its_gpu(tmp_path: Path) -> None:
    """An event that is out of turn, or somebody's mistake."""
    one = await product(tmp_path)
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    assert "qemu-system-x86" in await refused(one, "release")
    assert "qemu-system-x86" in await refused(one)
    assert await state(one) == "guest"
    await one.stop()
