"""What is stuck is tried again only where that can help, names everything that is missing, and fills no history."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from gpuhandoff.messages import Match, Variant
from gpuhandoff.names import MANAGER_INTERFACE
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Operation, hang, refuse, reject
from gpuhandoff.simulation.snapshot import differences
from tests.simulated.test_comebacks import DISPLAY_MANAGER, GPU, LATE, product, refusal, shows_desktop
from tests.support.plug import pull, push
from tests.support.product import Product

SOUND = "0000:01:00.1"
DAY = 24 * 3600


async def history(one: Product, count: int = 0) -> list[tuple[str, str, str, str]]:
    moves = await one.call("History", "su", GPU, count)
    return [tuple(move[key].value for key in ("operation", "why", "outcome", "message")) for move in moves]


def lose_sound(one: Product) -> None:
    one.machine.faults.set(refuse(errno.EIO), target="snd_hda_intel/bind", nth=0)
    one.machine.faults.set(refuse(errno.EIO), target="drivers_probe", detail="01:00.1", nth=0)


@pytest.mark.parametrize("silent", [True, False])
@in_virtual_time
async def test_days_of_the_same_leave_the_history_as_it_was(tmp_path: Path, *, silent: bool) -> None:
    """A display manager that hangs at its start is not started again and again; a systemd that is silent is asked."""
    one = await product(tmp_path)
    await one.handoff(GPU)
    if silent:
        on: list[bool] = []
        one.machine.faults.set(reject(LATE), target="StartUnit", nth=0, when=lambda _: bool(on))
        match = Match(MANAGER_INTERFACE, "Progress")
        await one.client.subscribe(match, lambda signal: on.append(True) if signal.body[1] == "claim-functions" else None)
    else:
        one.machine.faults.set(hang(), kind="job", target=DISPLAY_MANAGER, detail="start", nth=0)
    message = await refusal(one)
    assert ("tries again by itself" in message) is silent
    jobs = len([signal for signal in one.signals if signal.member == "JobRemoved"])
    await asyncio.sleep(2 * DAY)
    tries = len([signal for signal in one.signals if signal.member == "JobRemoved"]) - jobs
    assert (50 < tries < 150) if silent else (tries == 0), tries
    assert [move[:3] for move in await history(one)] == [
        ("reclaim", "asked", "stuck"),
        ("handoff", "asked", "done"),
    ]
    one.machine.faults.clear()
    if silent:
        await asyncio.sleep(2000)
        assert shows_desktop(one)
        assert (await history(one))[0][:3] == ("reclaim", "unstuck", "done")
    else:
        await one.reclaim(GPU)
    assert (await one.status(GPU))["state"] == "host"
    await one.stop()


@in_virtual_time
async def test_everything_that_is_missing_is_named_and_what_can_come_by_itself_is_tried(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    lose_sound(one)
    silence = one.machine.faults.set(reject(LATE), target="StartUnit", nth=0)
    message = await refusal(one)
    assert f"is back, but not {SOUND}" in message
    assert "Nor could stop-display be undone: " in message
    assert "that is tried again by itself" in message
    one.machine.faults.faults.remove(silence)
    await asyncio.sleep(100)
    assert shows_desktop(one)
    status = await one.status(GPU)
    assert status["state"] == "stuck"
    assert "stop-display" not in status["reason"]
    one.machine.faults.clear()
    await one.reclaim(GPU)
    await one.stop()


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN])
@pytest.mark.parametrize("scenario", ["single-nvidia", "igpu-dgpu"])
@in_virtual_time
async def test_nobody_is_told_to_close_the_desktop_that_is_back(tmp_path: Path, scenario: str, number: int) -> None:
    one = await product(tmp_path, scenario)
    await one.handoff(GPU)
    one.machine.faults.set(refuse(number), kind="write", target="d3cold_allowed", nth=0)
    message = await refusal(one)
    assert "stuck at claim-functions" in message
    assert "close that" not in message
    assert shows_desktop(one)
    one.machine.faults.clear()
    await one.reclaim(GPU)
    await one.stop()


@in_virtual_time
async def test_what_does_not_need_the_card_is_tried_again_also_while_it_is_gone(tmp_path: Path) -> None:
    one = await product(tmp_path, "igpu-dgpu")
    before = one.machine.snapshot()
    await one.handoff(GPU)
    one.machine.faults.set(reject(LATE), target="SetUnitProperties", nth=0)
    card = await pull(one.machine)
    await asyncio.sleep(200)
    assert "Nor could unload-driver be undone: 0000:01:00.0 has left the PCI bus" in (await history(one, 1))[0][3]
    one.machine.faults.clear()
    await asyncio.sleep(1500)
    now = one.machine.snapshot()
    assert {name: unit for name, unit in now["units"].items() if name.endswith("slice")} == {
        name: unit for name, unit in before["units"].items() if name.endswith("slice")
    }
    tries = len(one.signals)
    await asyncio.sleep(DAY)
    assert len(one.signals) == tries  # the rest waits for the card
    await push(one.machine, card)
    await asyncio.sleep(100)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_sibling_that_is_still_aimed_at_vfio_is_not_probed(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    one.machine.faults.set(refuse(errno.EIO), kind="write", target=f"{SOUND}/driver_override", detail="snd_hda_intel", nth=0)
    await refusal(one)
    assert one.machine.pci.devices[SOUND].driver is None
    assert shows_desktop(one)
    one.machine.faults.clear()
    await one.reclaim(GPU)
    await asyncio.sleep(5)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_another_card_in_its_place_is_left_alone(tmp_path: Path) -> None:
    one = await product(tmp_path, "igpu-dgpu")
    await one.call("Handoff", "sa{sv}", GPU, {"bars": Variant("s", "1=256M")})
    card = await pull(one.machine)
    await asyncio.sleep(60)
    card[0].device = 0x1234
    writes: list[str] = []

    def note(done: Operation) -> None:
        if done.kind == "write" and GPU in done.target:
            writes.append(done.target)

    one.machine.faults.on_operation = note
    await push(one.machine, card)
    await asyncio.sleep(2000)
    status = await one.status(GPU)
    assert (status["state"], "is another device (0x10de:0x1234) than" in status["reason"]) == ("stuck", True)
    assert "is another device" in await refusal(one)
    assert writes == []
    await one.stop()
