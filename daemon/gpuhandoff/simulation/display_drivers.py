"""Drivers of GPUs (kernel.md 1.4)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gpuhandoff.simulation.drivers import Driver
from gpuhandoff.simulation.pci import NVIDIA, PciDevice
from gpuhandoff.simulation.tree import Node

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

NVIDIA_MAJOR = 195


class DisplayDriver(Driver):
    """An in-tree DRM driver: unbinding does not wait for open DRM nodes, the module stays pinned by them."""

    probe_seconds = 0.08
    remove_seconds = 0.05
    idles = True
    ddc_buses = 1

    def __init__(self, machine: SimulatedMachine, name: str, module: str, vendor: int) -> None:
        super().__init__(machine, name, module, classes=(0x0300, 0x0302, 0x0380), vendors=(vendor,))
        self._framebuffers: dict[str, int] = {}

    async def probe(self, device: PciDevice) -> None:
        """Evict the firmware's framebuffer, make card, framebuffer and console."""
        self.machine.graphics.evict_firmware(device)
        self.machine.buses.add(device, self.module, [f"{self.name} DDC {n}" for n in range(self.ddc_buses)])
        self._show(device, self.module)

    async def remove(self, device: PciDevice) -> None:
        """Take the picture away, then wait for the DDC buses (kernel.md 1.4)."""
        self._hide(device)
        await self.machine.buses.remove(device)

    def _show(self, device: PciDevice, module: str | None) -> None:
        self.machine.graphics.add_card(device, module)
        if device.connectors:
            name = f"{(module or self.name).replace('_', '-')}drmfb"
            self._framebuffers[device.path] = self.machine.graphics.add_framebuffer(device, device.path, name, module)

    def _hide(self, device: PciDevice) -> None:
        number = self._framebuffers.pop(device.path, None)
        if number is not None:
            self.machine.graphics.remove_framebuffer(number)
        self.machine.graphics.remove_card(device)


class BochsDriver(DisplayDriver):
    """bochs, cirrus: no DDC bus of their own."""

    ddc_buses = 0


class NvidiaDriver(DisplayDriver):
    """nvidia: DRM comes from nvidia_drm, and remove waits until nobody uses the GPU, perhaps for ever (fact 11)."""

    def __init__(self, machine: SimulatedMachine) -> None:
        super().__init__(machine, "nvidia", "nvidia", NVIDIA)
        self._nodes: dict[str, Node] = {}
        self._shown: set[str] = set()

    async def probe(self, device: PciDevice) -> None:
        """Take the GPU; its nodes were made by nvidia-modprobe and outlive the module."""
        self.machine.graphics.evict_firmware(device)
        number = self.machine.lowest_free(int(node.path.removeprefix("/dev/nvidia")) for node in self._nodes.values())
        node = Node(f"/dev/nvidia{number}", os.makedev(NVIDIA_MAJOR, number), "nvidia", device.path)
        self._nodes[device.path] = node
        self.machine.tree.add(node.path, node)
        self.machine.tree.text(
            f"/proc/driver/nvidia/gpus/{device.address}/information",
            f"Model: \t\t {device.name}\nBus Location: \t {device.address}\nDevice Minor: \t {number}\n",
        )
        self.machine.buses.add(device, self.module, [f"NVIDIA i2c adapter 1 at {str(device.address)[5:]}"])
        self.show(device)
        self.machine.processes.appeared(node)

    async def remove(self, device: PciDevice) -> None:
        """Wait for the usage count in an interruptible sleep that signals do not end (kernel.md 1.4)."""
        waits = self.machine.waits
        if self._usage(device) and self._never_ends(device):
            await waits.until(lambda: False, "nv_pci_remove_helper", state="S")
        if self._modeset_unplugs():
            self.hide(device)
        await waits.until(lambda: not self._usage(device), "nv_pci_remove_helper", state="S")
        self.hide(device)
        await self.machine.buses.remove(device)
        self.machine.tree.remove(f"/proc/driver/nvidia/gpus/{device.address}")
        del self._nodes[device.path]

    def show(self, device: PciDevice) -> None:
        """Have nvidia_drm, if it is loaded, make the GPU's DRM nodes."""
        if "nvidia_drm" in self.machine.modules.loaded and device.path not in self._shown:
            self._shown.add(device.path)
            self._show(device, "nvidia_drm")

    def hide(self, device: PciDevice) -> None:
        """Have nvidia_drm take them away."""
        if device.path in self._shown:
            self._shown.discard(device.path)
            self._hide(device)

    def _usage(self, device: PciDevice) -> int:
        """The usage count: each open of the GPU's own nodes, and nvidia_drm itself while its modeset is on."""
        nodes = [self._nodes[device.path], *self.machine.graphics.nodes_of(device)]
        return len(self.machine.processes.holders(nodes)) + (device.path in self._shown)

    def _never_ends(self, device: PciDevice) -> bool:
        """Older drivers wait for nvidia_drm, which never lets go; with CUDA (uvm) even a dead holder counts on."""
        if device.path in self._shown and not self._modeset_unplugs():
            return True
        cuda = {process.pid for process in self.machine.processes.with_path("/dev/nvidia-uvm")}
        return bool(cuda & set(self.machine.processes.holders([self._nodes[device.path]])))

    def _modeset_unplugs(self) -> bool:
        """Whether nvidia_modeset has the hook that unplugs a GPU: 580.94.06, from 580.105.08, from 590."""
        version = tuple(int(part) for part in self.machine.nvidia_version.split("."))
        return version == (580, 94, 6) or version >= (580, 105, 8)


async def load_nvidia_drm(machine: SimulatedMachine) -> None:
    """Make DRM nodes for every GPU that nvidia has."""
    driver = machine.pci.drivers.get("nvidia")
    if isinstance(driver, NvidiaDriver):
        for device in machine.pci.devices.values():
            if device.driver is driver:
                driver.show(device)


async def unload_nvidia_drm(machine: SimulatedMachine) -> None:
    """Take all of them away."""
    driver = machine.pci.drivers.get("nvidia")
    if isinstance(driver, NvidiaDriver):
        for device in machine.pci.devices.values():
            driver.hide(device)
