"""A card that no driver of the host has: what the firmware shows with it is gone for good when vfio-pci takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import (
    ALICE,
    GPU,
    INTEL_GPU,
    KERNEL,
    NVIDIA_STACK,
    NVIDIA_VERSION,
    ONBOARD_SOUND,
    assemble,
    boot,
)
from gpuhandoff.simulation.sessions import Compositor, Login
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

DESKTOP = (Login("alice", ALICE, "kwin_wayland", (GPU,), ends=Compositor.SURVIVES),)
STOP = {"stop-display": Variant("b", True)}
RISK = {**STOP, "accept-risk": Variant("b", True)}
OLD = "6.1.0-56-amd64"


async def driverless(kernel: str = KERNEL, *, drm: bool = True) -> SimulatedMachine:
    """Return a machine whose only card waits for a driver that was not built; a desktop runs on the firmware's picture."""
    above = hardware.port(1, 1)
    machine = assemble((above, *hardware.rtx_4070(above, 1, 14, boot_vga=True)), kernel, NVIDIA_VERSION)
    if drm:
        machine.graphics.evict_firmware(machine.pci.at(GPU))
        machine.graphics.add_firmware(machine.pci.at(GPU), "simple-framebuffer", drm=True)
    return await boot(machine, (), DESKTOP if drm else (), persistence=False)


async def refusal(product: Product, options: dict[str, Variant]) -> str:
    """Return why a card is not lent; it costs nothing."""
    before = product.machine.snapshot()
    with pytest.raises(RemoteError) as caught:
        await product.call("Handoff", "sa{sv}", GPU, options)
    assert differences(before, product.machine.snapshot()) == []
    assert caught.value.name.endswith("NeedsConsent")
    return caught.value.message


async def preview(product: Product, options: dict[str, Variant]) -> dict[str, Any]:
    """Return what a person is told."""
    told = await product.call("Preview", "ssa{sv}", GPU, "handoff", options)
    return {key: one.value for key, one in told.items()}


@pytest.mark.parametrize("drm", [False, True])
def test_it_is_not_lent_before_somebody_accepts_a_dark_screen(tmp_path: Path, *, drm: bool) -> None:
    @in_virtual_time
    async def body() -> None:
        product = await Product(await driverless(drm=drm), tmp_path).start()
        message = await refusal(product, STOP)
        assert "No driver of the host has it" in message
        assert "its screen would stay dark" in message
        assert "with the option accept-risk" in message
        told = await preview(product, RISK)
        assert (told["reset-verdict"], told["reset-risk"]) == ("broken", True)
        assert "accept-risk" not in told["unneeded"]
        found = await product.call("Diagnose")
        (lost,) = [one for one in found if one["severity"].value == "problem"]
        assert lost["check"].value == "reset"
        assert "its screen would stay dark" in lost["evidence"].value
        claim = next(one for one in told["steps"] if one["step"].value == "claim-functions")
        assert claim["costs"].value == "the card is not expected to come back before a reboot"
        await product.stop()

    body()


@in_virtual_time
async def test_its_driver_makes_the_difference(tmp_path: Path) -> None:
    product = await Product(await driverless(drm=False), tmp_path).start()
    assert (await preview(product, RISK))["reset-verdict"] == "broken"
    for module in NVIDIA_STACK:
        await product.machine.kernel.load_module(module)
    assert (await preview(product, STOP))["reset-verdict"] == "safe"
    await product.stop()


@pytest.mark.parametrize("kernel", [OLD, KERNEL])
def test_a_desktop_on_the_firmwares_picture_is_seen(kernel: str, tmp_path: Path) -> None:
    """The device sits below the card from 6.9 on; before, it is that of the card with which the machine booted."""

    @in_virtual_time
    async def body() -> None:
        product = await Product(await driverless(kernel), tmp_path).start()
        assert "the graphical session of alice ends" in await refusal(product, {})
        told = await preview(product, RISK)
        assert told["desktop"] == "It ends: this card shows it to alice."
        assert told["sessions"] == ["alice on seat0"]
        await product.call("Handoff", "sa{sv}", GPU, RISK)
        assert (await product.status(GPU))["state"] == "detached"
        assert product.machine.processes.named("kwin_wayland") == []
        await product.stop()

    body()


@in_virtual_time
async def test_a_card_that_nobody_needs_is_lent_all_the_same(tmp_path: Path) -> None:
    above = hardware.port(1, 1)
    cards = (hardware.intel_graphics(boot_vga=False), above, *hardware.rtx_4070(above, 1, 14, boot_vga=True))
    desktop = (Login("alice", ALICE, "kwin_wayland", (INTEL_GPU,)),)
    machine = await boot(assemble(cards, KERNEL, NVIDIA_VERSION), ("i915",), desktop, persistence=False, sound=ONBOARD_SOUND)
    product = await Product(machine, tmp_path).start()
    await product.call("Handoff", "sa{sv}", GPU, {})
    assert (await product.status(GPU))["state"] == "detached"
    assert product.machine.processes.named("kwin_wayland")
    await product.stop()
