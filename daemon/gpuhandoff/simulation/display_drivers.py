"""Drivers of GPUs (kernel.md 1.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuhandoff.simulation.drivers import Driver
from gpuhandoff.simulation.pci import DISPLAY_CLASSES, QUMRANET, PciDevice

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine


class DisplayDriver(Driver):
    """An in-tree DRM driver: unbinding does not wait for open DRM nodes, the module stays pinned by them."""

    probe_seconds = 0.08
    remove_seconds = 0.05
    idles = True
    ddc_buses = 1

    def __init__(self, machine: SimulatedMachine, name: str, module: str | None, vendor: int) -> None:
        super().__init__(machine, name, module, classes=DISPLAY_CLASSES, vendors=(vendor,))
        self._framebuffers: dict[str, int] = {}

    async def probe(self, device: PciDevice) -> None:
        """Evict the firmware's framebuffer, make card, framebuffer and console."""
        self.machine.graphics.evict_firmware(device)
        self.machine.buses.add(device, self.module, [f"{self.name} DDC {n}" for n in range(self.ddc_buses)])
        self._show(device, device.path, self.module or self.name)

    async def remove(self, device: PciDevice) -> None:
        """Take the picture away, then wait for the DDC buses (kernel.md 1.4)."""
        self._hide(device)
        await self.machine.buses.remove(device)

    def _show(self, device: PciDevice, path: str, module: str) -> None:
        self.machine.graphics.add_card(device, path, module)
        if device.connectors:
            name = f"{module.replace('_', '-')}drmfb"
            self._framebuffers[device.path] = self.machine.graphics.add_framebuffer(device, path, name, module)

    def _hide(self, device: PciDevice) -> None:
        number = self._framebuffers.pop(device.path, None)
        if number is not None:
            self.machine.graphics.remove_framebuffer(number)
        self.machine.graphics.remove_card(device)


class BochsDriver(DisplayDriver):
    """bochs, cirrus: no DDC bus of their own."""

    ddc_buses = 0


class StackedDriver(DisplayDriver):
    """A PCI driver whose DRM device comes from another module, when that one is loaded."""

    drm_module = ""

    def __init__(self, machine: SimulatedMachine, name: str, module: str | None, vendor: int) -> None:
        super().__init__(machine, name, module, vendor)
        self._shown: set[str] = set()

    def place(self, device: PciDevice) -> str:
        """Return the directory that the DRM device hangs below."""
        return device.path

    def show(self, device: PciDevice) -> None:
        """Have the DRM module, if it is loaded, make the GPU's DRM nodes."""
        if self.drm_module in self.machine.modules.loaded and device.path not in self._shown:
            self._shown.add(device.path)
            self.machine.graphics.evict_firmware(device)
            self._show(device, self.place(device), self.drm_module)

    def hide(self, device: PciDevice) -> None:
        """Have the DRM module take them away."""
        if device.path in self._shown:
            self._shown.discard(device.path)
            self._hide(device)


class VirtioDriver(StackedDriver):
    """virtio-pci, often built in: it makes a virtio device, and virtio_gpu makes the picture (kernel.md 1.1)."""

    drm_module = "virtio_gpu"

    def __init__(self, machine: SimulatedMachine) -> None:
        super().__init__(machine, "virtio-pci", None, QUMRANET)
        self._children: dict[str, int] = {}

    def place(self, device: PciDevice) -> str:
        """Return the virtio device's directory."""
        return f"{device.path}/virtio{self._children[device.path]}"

    async def probe(self, device: PciDevice) -> None:
        """Make the virtio device."""
        number = self.machine.lowest_free(self._children.values())
        self._children[device.path] = number
        self.machine.tree.text(f"{self.place(device)}/device", "0x0010\n")
        self.machine.tree.link(f"/sys/bus/virtio/devices/virtio{number}", self.place(device))
        self.machine.uevents.emit("add", self.place(device), "virtio")
        self.show(device)

    async def remove(self, device: PciDevice) -> None:
        """Remove the virtio device with everything below it."""
        self.hide(device)
        path, number = self.place(device), self._children.pop(device.path)
        self.machine.tree.remove(f"/sys/bus/virtio/devices/virtio{number}")
        self.machine.tree.remove(path)
        self.machine.uevents.emit("remove", path, "virtio")


def load_drm(machine: SimulatedMachine, _name: str) -> None:
    """Make DRM nodes for every GPU whose PCI driver waits for the module that was just loaded."""
    for device in machine.pci.devices.values():
        if isinstance(device.driver, StackedDriver):
            device.driver.show(device)


def unload_drm(machine: SimulatedMachine, name: str) -> None:
    """Take away all DRM nodes that a module has made."""
    for device in machine.pci.devices.values():
        if isinstance(device.driver, StackedDriver) and device.driver.drm_module == name:
            device.driver.hide(device)
