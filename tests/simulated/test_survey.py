"""What the survey reads, on simulated machines; and that it wakes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gpuhandoff.errors import NotIsolatedError, UnsupportedError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.hardware import Connector, Firmware, FunctionKind, ReservedRegion
from gpuhandoff.model.request import HolderPolicy, Options
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.plan.refusal import refuse_handoff
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.pci import AMD, VGA, PciDevice
from gpuhandoff.simulation.scenarios import igpu_dgpu, shared_group, single_amd, single_nvidia
from gpuhandoff.survey import survey

GPU = PciAddress.parse("01:00.0")
MIB = 1 << 20


async def look(machine: SimulatedMachine) -> World:
    """Return what the survey sees."""
    broker = LoopbackBroker()
    await machine.serve(broker)
    return await survey(simulated_host(machine, broker.connect()))


async def card(machine: SimulatedMachine, address: PciAddress = GPU) -> Gpu:
    """Return one GPU as the survey sees it."""
    found = (await look(machine)).gpu(address)
    assert found is not None
    return found


@in_virtual_time
async def test_functions_by_what_they_are_for() -> None:
    gpu = await card(await single_amd())
    assert [one.kind for one in gpu.functions] == [
        FunctionKind.DISPLAY, FunctionKind.AUDIO, FunctionKind.USB, FunctionKind.UCSI,
    ]  # fmt: skip


@in_virtual_time
async def test_a_sleeping_card_is_looked_at_without_waking_it() -> None:
    machine = await igpu_dgpu()
    device = machine.pci.at(str(GPU))
    before = machine.snapshot()
    gpu = await card(machine)
    assert gpu.display.power.asleep
    assert [bar.possible for bar in gpu.bars] == [(), (), ()]
    assert [bar.size for bar in gpu.bars] == [16 * MIB, 16384 * MIB, 32 * MIB]
    assert [one.wakes for one in machine.pci.devices.values()] == [0] * len(machine.pci.devices)
    assert machine.snapshot() == before
    machine.kernel.read(f"{device.path}/resource1_resize")  # the trap itself works
    assert device.wakes == 1


@in_virtual_time
async def test_what_a_card_that_is_awake_says_of_its_windows() -> None:
    gpu = await card(await single_nvidia())
    assert not gpu.display.power.asleep
    assert gpu.display.power.control == "on"
    window = gpu.bars[1]
    assert (window.number, window.resizable, window.possible[0], window.possible[-1]) == (1, True, 256 * MIB, 16384 * MIB)
    assert not gpu.bars[0].resizable


@in_virtual_time
async def test_outputs_with_and_without_a_screen() -> None:
    gpu = await card(await single_nvidia())
    assert gpu.connectors == (Connector("DP-1", connected=False), Connector("HDMI-A-1", connected=True, enabled=True))
    assert gpu.connected == ("HDMI-A-1",)


@pytest.mark.parametrize(("kernel", "said"), [("6.12.107", False), ("7.2.13", True)])
def test_the_boot_display_where_the_kernel_names_it(kernel: str, *, said: bool) -> None:
    @in_virtual_time
    async def body() -> None:
        assert (await card(await single_nvidia(kernel=kernel))).boot_display is said

    body()


@in_virtual_time
async def test_bridges_of_a_group_are_told_from_what_breaks_it() -> None:
    gpu = await card(await shared_group())
    assert [str(one.address) for one in gpu.ports] == ["0000:00:01.0", "0000:00:03.0"]
    assert [str(one.address) for one in gpu.breakers] == ["0000:04:00.0"]


@in_virtual_time
async def test_in_a_processors_slot_only_its_sound_belongs_to_the_graphics() -> None:
    above = hardware.port(8, 3)
    slot = [(AMD, 0x1638, VGA), (AMD, 0x1637, hardware.AUDIO), (0x1022, 0x1639, hardware.USB), (0x1022, 0x15E2, 0x048000)]
    functions = [
        PciDevice(PciAddress(0, 9, 0, place), vendor, device, pci_class, 10 + place, parent=above)
        for place, (vendor, device, pci_class) in enumerate(slot)
    ]
    gpu = await card(SimulatedMachine((above, *functions)), PciAddress(0, 9, 0, 0))
    assert [one.address.function for one in gpu.functions] == [0, 1]
    for one in functions:
        one.group = 10
    together = await card(SimulatedMachine((above, *functions)), PciAddress(0, 9, 0, 0))
    assert [one.address.function for one in together.functions] == [0, 1, 2, 3]


@in_virtual_time
async def test_a_card_may_have_each_function_in_a_group_of_its_own() -> None:
    above, beside = hardware.port(1, 1), hardware.port(3, 27)
    functions = hardware.rx_6800(above, 1, 26)
    for place, one in enumerate(functions):
        one.group = 26 + place
    machine = SimulatedMachine((above, *functions, beside, hardware.network(4, 28, beside)))
    gpu = await card(machine)
    assert [one.address.function for one in gpu.functions] == [0, 1, 2, 3]
    assert gpu.groups == (26, 27, 28, 29)
    assert [str(one.address) for one in gpu.ports] == ["0000:00:03.0"]
    assert [str(one.address) for one in gpu.group] == ["0000:04:00.0"]
    assert gpu.nodes == ("/dev/vfio/26", "/dev/vfio/27", "/dev/vfio/28", "/dev/vfio/29")


@in_virtual_time
async def test_what_the_boot_loader_and_the_firmware_decided() -> None:
    line = "BOOT_IMAGE=/vmlinuz root=/dev/secret quiet intel_iommu=on vfio-pci.ids=10de:2786 amdgpu.dc=1 luks.name=home"
    world = await look(SimulatedMachine((), command_line=line))
    assert world.boot_parameters == ("intel_iommu=on", "vfio-pci.ids=10de:2786", "amdgpu.dc=1")
    assert world.iommu_firmware is Firmware.INTEL
    assert (await look(SimulatedMachine((), iommu_table="IVRS"))).iommu_firmware is Firmware.AMD
    assert (await look(SimulatedMachine((), iommu_table=""))).iommu_firmware is Firmware.NONE


@in_virtual_time
async def test_modules_that_are_a_part_of_the_kernel() -> None:
    world = await look(await single_nvidia())
    assert "vfio_pci" in world.available_modules
    assert "vfio_pci" not in world.builtin_modules
    machine = await single_nvidia(kernel="6.12.108")
    machine.tree.text(f"/lib/modules/{machine.kernel_release}/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko\n")
    assert "vfio_pci" in (await look(machine)).builtin_modules


@in_virtual_time
async def test_memory_that_the_firmware_wants_mapped_is_a_reason_to_refuse_from_6_10_on() -> None:
    machine = await single_nvidia()
    machine.direct_regions[14] = ["0x00000000bd000000 0x00000000bdffffff direct"]
    world = await look(machine)
    assert world.gpus[0].reserved[0] == ReservedRegion(0xBD000000, 0xBDFFFFFF, "direct")
    options = Options(stop_display=True, holders=HolderPolicy.TERMINATE)
    with pytest.raises(UnsupportedError, match="reserved memory"):
        refuse_handoff(world, world.gpus[0], options)
    older = replace(world, kernel_version="6.9.12")
    refuse_handoff(older, older.gpus[0], options)
    machine.direct_regions[14] = ["0x00000000bd000000 0x00000000bdffffff direct-relaxable"]
    relaxed = await look(machine)
    refuse_handoff(relaxed, relaxed.gpus[0], options)


def _refused(change: Callable[[World], World]) -> Any:
    @in_virtual_time
    async def body() -> None:
        world = change(await look(await single_nvidia()))
        with pytest.raises(NotIsolatedError) as caught:
            refuse_handoff(world, world.gpus[0], Options())
        sentences.append(caught.value.message)

    sentences: list[str] = []
    body()
    return sentences[0]


@pytest.mark.parametrize(
    ("firmware", "parameters", "words"),
    [
        (Firmware.INTEL, (), "Add intel_iommu=on"),
        (Firmware.INTEL, ("intel_iommu=off",), "The kernel command line says intel_iommu=off. Remove that"),
        (Firmware.AMD, ("iommu=pt,off",), "says iommu=pt,off."),
        (Firmware.AMD, ("iommu=pt",), "AMD-Vi), the kernel does not use it"),
        (Firmware.NONE, ("intel_iommu=on",), "The firmware does not offer one."),
    ],
)
def test_an_iommu_that_is_off_in_the_firmware_or_on_the_command_line(
    firmware: Firmware, parameters: tuple[str, ...], words: str
) -> None:
    assert words in _refused(lambda world: replace(world, iommu=False, iommu_firmware=firmware, boot_parameters=parameters))
