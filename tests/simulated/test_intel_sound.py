"""Intel graphics, whose module the sound device holds that plays through their screens (kernel.md 1.3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.pci import INTEL, VGA, PciDevice
from gpuhandoff.simulation.scenarios import INTEL_GPU, KERNEL, ONBOARD_SOUND, assemble, boot, igpu_dgpu
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.survey import survey
from tests.support.product import Product

ONBOARD_AUDIO = "0000:00:1f.3"
ARC, ARC_AUDIO = "0000:03:00.0", "0000:04:00.0"
UNBIND = "/sys/bus/pci/drivers/snd_hda_intel/unbind"
CONSENT = {"stop-display": Variant("b", True)}


async def arc() -> SimulatedMachine:
    """Return a machine with an Arc alone, behind its own switch: its sound is on another bus than its graphics."""
    root = hardware.port(1, 1)

    def bridge(bus: int, device: int, above: PciDevice) -> PciDevice:
        return PciDevice(PciAddress(0, bus, device, 0), INTEL, 0x4FA0, hardware.BRIDGE, 1, parent=above)

    switch = bridge(1, 0, root)
    left, right = bridge(2, 1, switch), bridge(2, 4, switch)
    graphics = PciDevice(
        PciAddress.parse(ARC), INTEL, 0x56A0, VGA, 14, parent=left, boot_vga=True, connectors=hardware.SCREEN
    )
    audio = PciDevice(PciAddress.parse(ARC_AUDIO), INTEL, 0x4F90, hardware.AUDIO, 15, parent=right)
    return await boot(assemble((root, switch, left, right, graphics, audio), KERNEL), ("xe",), (), sound=ONBOARD_SOUND)


async def audio_of(machine: SimulatedMachine, gpu: str) -> list[str]:
    """Return the sound devices that the survey connects with a GPU."""
    broker = LoopbackBroker()
    await machine.serve(broker)
    found = (await survey(simulated_host(machine, broker.connect()))).gpu(PciAddress.parse(gpu))
    assert found is not None
    return [str(one.address) for one in found.audio]


@in_virtual_time
async def test_the_desktop_does_not_end_for_a_module_that_cannot_be_unloaded(tmp_path: Path) -> None:
    product = await Product(await igpu_dgpu(), tmp_path).start()
    before = product.machine.snapshot()
    with pytest.raises(RemoteError) as caught:
        await product.call("Handoff", "sa{sv}", INTEL_GPU, CONSENT)
    assert caught.value.name.endswith("InUse")
    assert f"the sound device {ONBOARD_AUDIO}, which plays through its screens" in caught.value.message
    assert f"`echo {ONBOARD_AUDIO} | sudo tee {UNBIND}`" in caught.value.message
    assert not [one for one in product.signals if one.member == "Progress"]
    assert differences(before, product.machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_it_can_be_lent_once_that_was_done_as_it_says(tmp_path: Path) -> None:
    product = await Product(await igpu_dgpu(), tmp_path).start()
    await product.machine.kernel.write(UNBIND, ONBOARD_AUDIO)
    before = product.machine.snapshot()
    await product.call("Handoff", "sa{sv}", INTEL_GPU, CONSENT)
    assert (await product.status(INTEL_GPU))["state"] == "detached"
    await product.reclaim(INTEL_GPU)
    assert differences(before, product.machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_the_sound_of_a_card_is_behind_its_switch_and_that_of_a_processor_on_its_bus() -> None:
    assert await audio_of(await arc(), ARC) == [ARC_AUDIO]
    both = await igpu_dgpu()
    assert await audio_of(both, INTEL_GPU) == [ONBOARD_AUDIO]
    assert await audio_of(both, "0000:01:00.0") == []


@in_virtual_time
async def test_only_the_sound_of_the_card_itself_holds_its_module(tmp_path: Path) -> None:
    product = await Product(await arc(), tmp_path).start()
    assert product.machine.kernel.read("/sys/module/xe/refcnt") == "1"
    with pytest.raises(RemoteError, match=f"The module xe of {ARC} .* the sound device {ARC_AUDIO},"):
        await product.call("Handoff", "sa{sv}", ARC, CONSENT)
    await product.machine.kernel.write(UNBIND, ARC_AUDIO)
    assert product.machine.kernel.read("/sys/module/xe/refcnt") == "0"
    await product.call("Handoff", "sa{sv}", ARC, CONSENT)
    assert (await product.status(ARC))["state"] == "detached"
    await product.stop()
