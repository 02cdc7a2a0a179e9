"""A card that comes back has to prove it: it answers, its driver shows it, a screen is seen."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Effect, Perform
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import single_amd, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

GPU = "0000:01:00.0"


async def lent(directory: Path, machine: SimulatedMachine) -> Product:
    """Return a product whose card has been with a guest."""
    product = await Product(machine, directory / "run", state_directory=directory / "state").start()
    await product.handoff(GPU)
    machine.start_guest(GPU)
    await asyncio.sleep(1)
    return product


def hiding(machine: SimulatedMachine) -> Effect:
    """Return a fault: what was asked for happens, and the card's driver shows nothing of it."""

    async def hide(perform: Perform) -> None:
        await perform()
        machine.graphics.remove_card(machine.pci.at(GPU))

    return hide


@in_virtual_time
async def test_a_card_that_does_not_answer_is_stuck_at_once_and_remembered(tmp_path: Path) -> None:
    machine = await single_nvidia()
    product = await lent(tmp_path, machine)
    machine.pci.at(GPU).dead = True
    machine.stop_guest(GPU)
    machine.faults.log.clear()
    with pytest.raises(RemoteError, match="does not answer any more") as caught:
        await product.reclaim(GPU)
    assert caught.value.name.endswith(".Stuck")
    assert not [one for one in machine.faults.log if one.kind == "load-module" and one.target == "nvidia"]  # not poked
    assert (await product.status(GPU))["state"] == "stuck"
    await product.reboot(single_nvidia)
    status = await product.status(GPU)
    assert (status["reset-verdict"], status["reset-source"]) == ("broken", "this machine")
    assert "does not answer any more" in status["reset-reason"]
    await product.stop()


@in_virtual_time
async def test_one_that_somebody_else_gave_to_vfio_is_asked_as_well(tmp_path: Path) -> None:
    machine = await single_amd()
    product = await Product(machine, tmp_path).start()
    await product.handoff(GPU)
    await product.stop()
    shutil.rmtree(tmp_path)  # nobody knows any more who did it
    await product.start_daemon()
    machine.pci.at(GPU).dead = True
    with pytest.raises(RemoteError, match="does not answer any more"):
        await product.reclaim(GPU)
    await product.stop()


@in_virtual_time
async def test_a_driver_that_shows_nothing_is_probed_once_more(tmp_path: Path) -> None:
    machine = await single_amd()
    before = machine.snapshot()
    product = await lent(tmp_path, machine)
    machine.stop_guest(GPU)
    hide = hiding(machine)
    machine.faults.set(hide, kind="load-module", target="amdgpu")
    await product.reclaim(GPU)
    assert differences(before["connectors"], machine.snapshot()["connectors"]) == []
    await product.stop()


@in_virtual_time
async def test_a_driver_that_shows_nothing_twice_is_stuck(tmp_path: Path) -> None:
    machine = await single_amd()
    product = await lent(tmp_path, machine)
    machine.stop_guest(GPU)
    hide = hiding(machine)
    for kind, target in (("load-module", "amdgpu"), ("write", "drivers_probe"), ("write", "amdgpu/bind")):
        machine.faults.set(hide, kind=kind, target=target, nth=0)
    with pytest.raises(RemoteError, match="is with its driver amdgpu, which does not show it"):
        await product.reclaim(GPU)
    await product.stop()


@in_virtual_time
async def test_a_screen_that_is_not_seen_is_looked_for(tmp_path: Path) -> None:
    machine = await single_nvidia()
    product = await lent(tmp_path, machine)
    machine.stop_guest(GPU)
    machine.graphics.unseen.add("card0-HDMI-A-1")
    await product.reclaim(GPU)
    assert (await product.status(GPU))["connectors"] == ["HDMI-A-1"]
    await product.stop()


@in_virtual_time
async def test_a_screen_that_was_switched_off_meanwhile_makes_nobody_stuck(tmp_path: Path) -> None:
    machine = await single_nvidia()
    product = await lent(tmp_path, machine)
    machine.stop_guest(GPU)
    device = machine.pci.at(GPU)
    device.connectors = tuple((name, False) for name, _ in device.connectors)
    await product.reclaim(GPU)
    assert (await product.status(GPU))["state"] == "host"
    await product.stop()
