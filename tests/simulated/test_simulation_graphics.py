"""Consoles, firmware framebuffers and the order of events (kernel.md 2, 9)."""

import asyncio
import errno

import pytest

from gpuhandoff.host.door import Uevent
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.pci import QUMRANET, VGA, PciDevice
from gpuhandoff.simulation.scenarios import GPU, single_amd

CONSOLE = "/sys/class/vtconsole/vtcon1"
DEVICE = f"/sys/bus/pci/devices/{GPU}"
FIRMWARE = "/sys/bus/platform/drivers/efi-framebuffer"


async def without_driver(release: str = "6.12.107") -> SimulatedMachine:
    """Return a machine on its firmware's framebuffer, amdgpu not loaded."""
    above = hardware.port(1, 1)
    machine = SimulatedMachine((above, *hardware.rx_6800(above, 1, 14)), kernel_release=release)
    machine.graphics.add_firmware(machine.pci.at(GPU))
    await machine.boot(["vfio_iommu_type1"], [])
    return machine


@in_virtual_time
async def test_the_console_goes_with_the_last_framebuffer_and_comes_back_bound() -> None:
    machine = await single_amd()
    assert machine.kernel.read(f"{CONSOLE}/name") == "(M) frame buffer device"
    await machine.kernel.write(f"{CONSOLE}/bind", "0")
    assert machine.kernel.read(f"{CONSOLE}/bind") == "0"
    assert machine.kernel.read("/sys/class/vtconsole/vtcon0/bind") == "1"
    await machine.kernel.write("/sys/bus/pci/drivers/amdgpu/unbind", GPU)
    assert not machine.kernel.exists(CONSOLE)
    await machine.kernel.write("/sys/bus/pci/drivers/amdgpu/bind", GPU)
    assert machine.kernel.read(f"{CONSOLE}/bind") == "1"


@in_virtual_time
@pytest.mark.parametrize(
    ("release", "place"),
    [("6.1.0-56-amd64", "/sys/devices/platform"), ("6.12.107", f"/sys/devices/pci0000:00/0000:00:01.0/{GPU}")],
)
async def test_the_firmware_framebuffer_hangs_below_its_gpu_since_6_9(release: str, place: str) -> None:
    machine = await without_driver(release)
    assert machine.kernel.resolve("/sys/bus/platform/devices/efi-framebuffer.0") == f"{place}/efi-framebuffer.0"
    assert machine.kernel.read("/proc/fb") == "0 EFI VGA"


@in_virtual_time
async def test_a_drm_driver_may_have_it_until_another_one_takes_the_gpu() -> None:
    """simpledrm, and efidrm and vesadrm of 7.2: a card node that renders nothing, below the firmware's device."""
    machine = await without_driver()
    machine.graphics.evict_firmware(machine.pci.at(GPU))
    machine.graphics.add_firmware(machine.pci.at(GPU), "simple-framebuffer", drm=True)
    assert machine.kernel.entries(f"{DEVICE}/simple-framebuffer.0/drm") == ["card0"]
    assert machine.kernel.read("/sys/class/drm/card0-Unknown-1/status") == "connected"
    assert machine.kernel.read("/proc/fb") == "0 simpledrmdrmfb"
    await machine.kernel.load_module("amdgpu")
    assert machine.kernel.entries(f"{DEVICE}/drm") == ["card0", "renderD128"]
    assert not machine.kernel.exists("/sys/class/drm/card0-Unknown-1")


@in_virtual_time
async def test_it_can_be_unbound_and_bound_while_no_driver_came() -> None:
    machine = await without_driver()
    await machine.kernel.write(f"{FIRMWARE}/unbind", "efi-framebuffer.0")
    assert machine.kernel.read("/proc/fb") == ""
    await machine.kernel.write(f"{FIRMWARE}/bind", "efi-framebuffer.0")
    assert machine.kernel.read("/proc/fb") == "0 EFI VGA"


@in_virtual_time
@pytest.mark.parametrize("module", ["amdgpu", "vfio_pci"])
async def test_facts_8_and_9_a_driver_or_vfio_evicts_it_for_good(module: str) -> None:
    machine = await without_driver()
    await machine.kernel.write(f"{DEVICE}/driver_override", "vfio-pci" if module == "vfio_pci" else "amdgpu")
    await machine.kernel.load_module(module)
    assert not machine.kernel.exists("/sys/bus/platform/devices/efi-framebuffer.0")
    for verb in ("unbind", "bind"):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await machine.kernel.write(f"{FIRMWARE}/{verb}", "efi-framebuffer.0")
        assert caught.value.errno == errno.ENODEV


@in_virtual_time
async def test_section_9_events_of_a_native_driver_come_in_order() -> None:
    machine = await without_driver()
    events: list[Uevent] = []
    machine.uevents.subscribe(events.append)
    await machine.kernel.load_module("amdgpu")
    wanted = [
        ("remove", "graphics"),
        ("remove", "vtconsole"),
        ("unbind", "platform"),
        ("remove", "platform"),
        ("add", "drm"),
        ("change", "drm"),
        ("add", "graphics"),
        ("add", "vtconsole"),
        ("bind", "pci"),
        ("add", "drivers"),
    ]
    seen = list(dict.fromkeys((event.action, event.subsystem) for event in events))
    assert [one for one in seen if one in wanted] == wanted
    assert next(event for event in events if event.action == "bind").driver == "amdgpu"


@in_virtual_time
async def test_section_9_unbind_comes_last_and_names_no_driver() -> None:
    machine = await single_amd()
    events: list[Uevent] = []
    machine.uevents.subscribe(events.append)
    await machine.kernel.write("/sys/bus/pci/drivers/amdgpu/unbind", GPU)
    assert [event.subsystem for event in events][:2] == ["graphics", "vtconsole"]
    assert events[-1] == Uevent("unbind", machine.kernel.resolve(DEVICE), "pci", "")


@in_virtual_time
async def test_section_9_sound_comes_later_than_bind() -> None:
    machine = await single_amd()
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", "0000:01:00.1")
    events: list[Uevent] = []
    machine.uevents.subscribe(events.append)
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/bind", "0000:01:00.1")
    assert [event.action for event in events] == ["bind"]
    await asyncio.sleep(1)
    assert {event.subsystem for event in events[1:]} == {"sound"}


@in_virtual_time
async def test_the_picture_of_virtio_comes_from_virtio_gpu_on_a_child_device() -> None:
    address = PciAddress(0, 0, 1, 0)
    machine = SimulatedMachine([PciDevice(address, QUMRANET, 0x1050, VGA, 3, connectors=hardware.SCREEN)])
    await machine.boot(["virtio_gpu"], [])
    device = f"/sys/bus/pci/devices/{address}"
    assert machine.kernel.link(f"{device}/driver") == "virtio-pci"
    assert machine.kernel.entries(f"{device}/virtio0/drm") == ["card0", "renderD128"]
    await machine.kernel.remove_module("virtio_gpu")
    assert machine.kernel.link(f"{device}/driver") == "virtio-pci"
    assert not machine.kernel.exists("/dev/dri/card0")
    await machine.kernel.load_module("virtio_gpu")
    await machine.kernel.write("/sys/bus/pci/drivers/virtio-pci/unbind", str(address))
    assert not machine.kernel.exists(f"{device}/virtio0")
    assert not machine.kernel.exists("/dev/dri/card0")


@in_virtual_time
async def test_sysfs_leads_from_node_to_device() -> None:
    machine = await single_amd()
    number = machine.kernel.device_number("/dev/dri/card0")
    assert number is not None
    assert machine.kernel.resolve(f"/sys/dev/char/226:{number & 0xFF}/device") == machine.kernel.resolve(DEVICE)
    assert machine.kernel.read("/sys/class/drm/card0-HDMI-A-1/status") == "connected"
    assert machine.kernel.resolve("/sys/class/graphics/fb0/device") == machine.kernel.resolve(DEVICE)
    assert machine.kernel.resolve("/sys/class/sound/controlC1/device/device").endswith("0000:01:00.1")
