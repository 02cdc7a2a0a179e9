"""GPU services with more than one card: they stop for the cards that they have to do with, and come back with the last."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import lie
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import (
    GPU,
    INTEL_GPU,
    KERNEL,
    NVIDIA_STACK,
    NVIDIA_VERSION,
    ONBOARD_SOUND,
    SECOND_GPU,
    assemble,
    boot,
)
from gpuhandoff.simulation.sessions import Login
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.simulation.units import Program, SimulatedUnit
from tests.support.product import Product
from tests.support.tidying import unnumbered

SERVICE = "nvidia-persistenced.service"
BOTH = "dcgm.service"
"""Somebody has configured it; it needs NVIDIA's driver, and stops for every card."""
SETTINGS = Configuration(host=HostSettings(gpu_services=(SERVICE, BOTH)))
ORDERS = pytest.mark.parametrize("back", [(GPU, SECOND_GPU), (SECOND_GPU, GPU)], ids=["first-first", "second-first"])


async def machine(*, radeon: bool) -> SimulatedMachine:
    """Intel graphics show the desktop; beside a GeForce sits a Radeon, or another GeForce, and nobody uses either."""
    first, second = hardware.port(1, 1), hardware.port(3, 2)
    beside = hardware.rx_6800(first, 1, 14) if radeon else hardware.rtx_3060(first, 1, 14, boot_vga=False)
    beside[0].boot_vga = False
    geforce = hardware.rtx_4070(second, 2, 15, boot_vga=False, screen=False)
    built = assemble((hardware.intel_graphics(), first, second, *beside, *geforce), KERNEL, NVIDIA_VERSION)
    modules = ("i915", *(["amdgpu"] if radeon else []), *NVIDIA_STACK)
    login = Login("alice", 1000, "kwin_wayland", (INTEL_GPU,))
    return await boot(built, modules, (login,), sound=ONBOARD_SOUND)


async def product(directory: Path, *, radeon: bool) -> Product:
    built = await machine(radeon=radeon)
    unit = SimulatedUnit(
        BOTH, f"/system.slice/{BOTH}", (Program("nv-hostengine", 0, ("/dev/nvidiactl",)),), needs_module="nvidia"
    )
    built.units.add(unit)
    await built.units.start(unit)
    return await Product(built, directory / "run", SETTINGS).start()


def running(one: Product) -> list[str]:
    return [name for name in (SERVICE, BOTH) if one.machine.units.units[name].active_state == "active"]


async def stops(one: Product, gpu: str) -> list[str]:
    plan = await one.call("Plan", "ssa{sv}", gpu, "handoff", {})
    return [step[1] for step in plan if step[0] == "stop-gpu-services"]


@ORDERS
@in_virtual_time
async def test_a_radeon_takes_no_service_of_nvidias_along(back: tuple[str, ...], tmp_path: Path) -> None:
    one = await product(tmp_path, radeon=True)
    before = unnumbered(one.machine.snapshot())
    assert await stops(one, GPU) == [f"stop {BOTH}"]
    assert await stops(one, SECOND_GPU) == [f"stop {SERVICE}, {BOTH}"]
    await one.call("Handoff", "sa{sv}", GPU, {})
    assert running(one) == [SERVICE]
    assert await stops(one, SECOND_GPU) == [f"stop {SERVICE}, keep {BOTH} stopped"]
    await one.call("Handoff", "sa{sv}", SECOND_GPU, {})
    assert running(one) == []
    await one.reclaim(back[0])  # the Radeon first: what it was stopped for needs the GeForce's driver
    assert (await one.status(back[0]))["state"] == "host"
    assert running(one) == ([SERVICE] if back[0] == SECOND_GPU else [])
    await one.reclaim(back[1])
    assert running(one) == [SERVICE, BOTH]
    await asyncio.sleep(5)
    assert differences(before, unnumbered(one.machine.snapshot())) == []
    assert one.journals() == []
    await one.stop()


@pytest.mark.parametrize("killed", [False, True])
@ORDERS
@in_virtual_time
async def test_a_service_of_both_comes_back_with_the_last(back: tuple[str, ...], killed: bool, tmp_path: Path) -> None:
    one = await product(tmp_path, radeon=False)
    before = unnumbered(one.machine.snapshot())
    for gpu in (GPU, SECOND_GPU):
        await one.call("Handoff", "sa{sv}", gpu, {})
        assert running(one) == []
    for gpu in back:
        if killed:
            one.kill()
            await one.start_daemon()
        await one.reclaim(gpu)
        assert running(one) == ([] if gpu == back[0] else [SERVICE, BOTH])
    await asyncio.sleep(5)
    assert differences(before, unnumbered(one.machine.snapshot())) == []
    await one.stop()


@in_virtual_time
async def test_a_second_card_that_is_not_lent_after_all_starts_nothing_of_the_first(tmp_path: Path) -> None:
    one = await product(tmp_path, radeon=False)
    await one.call("Handoff", "sa{sv}", GPU, {})
    one.machine.faults.set(lie(), target="drivers_probe", nth=0)
    one.machine.faults.set(lie(), target="vfio-pci/bind", nth=0)
    with pytest.raises(RemoteError, match="put back as it was"):
        await one.call("Handoff", "sa{sv}", SECOND_GPU, {})
    one.machine.faults.clear()
    assert running(one) == []
    await one.reclaim(GPU)
    assert running(one) == [SERVICE, BOTH]
    await one.stop()


@in_virtual_time
async def test_a_service_that_could_not_start_is_started_by_another_reclaim(tmp_path: Path) -> None:
    one = await product(tmp_path, radeon=True)
    await one.call("Handoff", "sa{sv}", GPU, {})
    await one.machine.units.stop(one.machine.units.units[SERVICE])
    for name in NVIDIA_STACK[::-1]:
        await one.machine.modules.remove(name)
    with pytest.raises(RemoteError, match=f"{BOTH} could not be started"):
        await one.reclaim(GPU)
    assert (await one.status(GPU))["state"] == "stuck"
    for name in NVIDIA_STACK:
        await one.machine.modules.load(name)
    await one.reclaim(GPU)
    assert (await one.status(GPU))["state"] == "host"
    assert running(one) == [BOTH]
    await one.stop()
