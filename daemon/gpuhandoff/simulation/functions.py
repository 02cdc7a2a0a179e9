"""The sysfs directory of a PCI function: identity, override, power, IOMMU group."""

from __future__ import annotations

import errno
import re
from functools import partial
from typing import TYPE_CHECKING

from gpuhandoff.simulation.pci import DEVICES, PciDevice
from gpuhandoff.simulation.tree import Link, failure
from gpuhandoff.simulation.virtual_functions import add_virtual_function

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

PAGE = 4096
GROUPS = "/sys/kernel/iommu_groups"


def add_function(machine: SimulatedMachine, device: PciDevice) -> None:
    """Plug in a function that no driver has seen yet."""
    tree, path = machine.tree, device.path
    machine.pci.devices[str(device.address)] = device
    machine.pci.devices = dict(sorted(machine.pci.devices.items()))
    for name, value in (("vendor", device.vendor), ("device", device.device)):
        tree.text(f"{path}/{name}", f"0x{value:04x}\n")
    tree.text(f"{path}/class", f"0x{device.pci_class:06x}\n")
    tree.text(f"{path}/modalias", f"{device.alias}\n")
    tree.text(f"{path}/subsystem_vendor", f"0x{device.subsystem[0]:04x}\n")
    tree.text(f"{path}/subsystem_device", f"0x{device.subsystem[1]:04x}\n")
    if device.is_vga:
        tree.text(f"{path}/boot_vga", f"{int(device.boot_vga)}\n")
    if device.reset_method:
        tree.text(f"{path}/reset_method", f"{device.reset_method}\n")
    tree.text(f"{path}/config", lambda: _configuration(machine, device))
    tree.text(f"{path}/enable", lambda: f"{_enabled(machine, device)}\n")
    _add_windows(machine, device)
    _add_override(machine, device)
    _add_power(machine, device)
    tree.link(f"{DEVICES}/{device.address}", path)
    if machine.iommu:
        tree.link(f"{path}/iommu_group", f"{GROUPS}/{device.group}")
        tree.add(f"{GROUPS}/{device.group}/devices/{device.address}", Link(path))
        tree.text(f"{GROUPS}/{device.group}/type", "DMA-FQ\n")
        tree.text(f"{GROUPS}/{device.group}/reserved_regions", lambda: _reserved(machine, device.group))
    if device.physical is not None:
        add_virtual_function(machine, device, device.physical)
    machine.uevents.emit("add", path, "pci")


def _enabled(machine: SimulatedMachine, device: PciDevice) -> int:
    """How often it was enabled: by its driver, by vfio-pci for as long as a guest has it open (vfio_pci_core_enable)."""
    if device.driver is None:
        return 0
    return int(device.driver.name != "vfio-pci" or machine.vfio.is_open(device.group))


def _reserved(machine: SimulatedMachine, group: int) -> str:
    """Every group has the range of interrupts; the firmware may want more."""
    regions = [*machine.direct_regions.get(group, ()), "0x00000000fee00000 0x00000000feefffff msi"]
    return "".join(f"{one}\n" for one in regions)


def _add_windows(machine: SimulatedMachine, device: PciDevice) -> None:
    """Six windows, the expansion ROM, six more that only bridges have; where each could be, which asks the card itself."""
    for number, _, possible in device.bars:
        if possible:
            bits = sum(1 << (one.bit_length() - 1) for one in possible)
            read = partial(_asked, machine, device, bits)
            machine.tree.text(f"{device.path}/resource{number}_resize", read, partial(_resize, machine, device, number))
    machine.tree.text(f"{device.path}/resource", lambda: _resources(device))


def _resources(device: PciDevice) -> str:
    lines = ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 13
    for number, size, _ in device.bars:
        start = (device.address.bus + 1 << 40) + (number << 36)
        if size:
            lines[number] = f"0x{start:016x} 0x{start + (size << 20) - 1:016x} 0x000000000014220c"
    return "".join(f"{line}\n" for line in lines)


async def _resize(machine: SimulatedMachine, device: PciDevice, number: int, text: str) -> None:
    """Set a window: under the device's lock, while no driver is bound, to a size that it can have (kernel.md 5)."""
    path = f"{device.path}/resource{number}_resize"
    if machine.newer_than(7, 2) and not machine.sys_admin:
        raise failure(errno.EPERM, path)
    await machine.waits.until(lambda: not device.lock.locked(), "resource_resize_store")
    possible = next(possible for place, _, possible in device.bars if place == number)
    if device.driver is not None:
        raise failure(errno.EBUSY, path)
    if not text.strip().isdecimal() or 1 << int(text) not in possible:
        raise failure(errno.EINVAL, path)
    wanted = 0 if device.homeless else 1 << int(text)
    device.bars = tuple((place, wanted if place == number else size, sizes) for place, size, sizes in device.bars)


def _configuration(machine: SimulatedMachine, device: PciDevice) -> str:
    """Vendor and device as the card itself says, in hexadecimal; all ones from one that is dead."""
    device.wakes += suspended(machine, device)
    return "ff" * 4 if device.dead else f"{_swapped(device.vendor)}{_swapped(device.device)}"


def _swapped(number: int) -> str:
    return number.to_bytes(2, "little").hex()


def _asked(machine: SimulatedMachine, device: PciDevice, bits: int) -> str:
    """Read a register of the card: the kernel wakes it for that."""
    device.wakes += suspended(machine, device)
    return f"{bits:016x}\n"


def _add_override(machine: SimulatedMachine, device: PciDevice) -> None:
    path = f"{device.path}/driver_override"

    async def write(text: str) -> None:
        if len(text) >= PAGE - 1:
            raise failure(errno.EINVAL, path)
        if machine.override_takes_lock:
            await machine.waits.until(lambda: not device.lock.locked(), "driver_override_store")
        device.override = re.split("[\n\0]", text, maxsplit=1)[0]

    machine.tree.text(path, lambda: f"{device.override or '(null)'}\n", write)


def _add_power(machine: SimulatedMachine, device: PciDevice) -> None:
    tree, path = machine.tree, device.path

    def write_control(text: str) -> None:
        wanted = text.strip()
        if wanted not in {"on", "auto"}:
            raise failure(errno.EINVAL, f"{path}/power/control")
        device.control = wanted

    def write_d3cold(text: str) -> None:
        if text.strip() not in {"0", "1"}:
            raise failure(errno.EINVAL, f"{path}/d3cold_allowed")
        device.d3cold_allowed = text.strip() == "1"

    tree.text(f"{path}/power/control", lambda: f"{device.control}\n", write_control)
    tree.text(f"{path}/power/runtime_status", lambda: f"{'suspended' if suspended(machine, device) else 'active'}\n")
    tree.text(f"{path}/d3cold_allowed", lambda: f"{int(device.d3cold_allowed)}\n", write_d3cold)
    tree.text(f"{path}/power_state", lambda: f"{_power_state(machine, device)}\n")


def suspended(machine: SimulatedMachine, device: PciDevice) -> bool:
    """Tell whether a function sleeps: allowed to, and nobody has it open (kernel.md 4.2)."""
    if device.control != "auto" or device.driver is None or not device.driver.idles:
        return False
    if device.driver.shares_group:
        return not machine.vfio.is_open(device.group)
    return not machine.processes.opened(device.path)


def _power_state(machine: SimulatedMachine, device: PciDevice) -> str:
    if device.driver is None and not machine.newer_than(7, 0):
        return "unknown"
    if not suspended(machine, device):
        return "D0"
    above = device.parent is None or device.parent.d3cold_allowed
    return "D3cold" if device.d3cold_allowed and above else "D3hot"
