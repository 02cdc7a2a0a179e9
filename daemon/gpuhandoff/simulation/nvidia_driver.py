"""NVIDIA's own driver (kernel.md fact 11)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gpuhandoff.simulation.display_drivers import StackedDriver
from gpuhandoff.simulation.pci import NVIDIA, PciDevice
from gpuhandoff.simulation.tree import Node

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

NVIDIA_MAJOR = 195


VERSION = "/proc/driver/nvidia/version"


def show_version(machine: SimulatedMachine, module: str) -> None:
    """Say which driver it is: NVIDIA's open kernel modules, or the others."""
    kind = "Open Kernel Module for x86_64" if machine.nvidia_open else "x86_64 Kernel Module"
    text = f"NVRM version: NVIDIA UNIX {kind}  {machine.nvidia_version}  Release Build"
    machine.tree.text(VERSION, f"{text}\nGCC version:  gcc version 14.2.0 (Debian 14.2.0-19)\n")


def hide_version(machine: SimulatedMachine, module: str) -> None:
    """Say it no more."""
    machine.tree.remove(VERSION)


class NvidiaDriver(StackedDriver):
    """nvidia: remove waits until nobody uses the GPU, perhaps for ever."""

    drm_module = "nvidia_drm"

    def __init__(self, machine: SimulatedMachine) -> None:
        super().__init__(machine, "nvidia", "nvidia", NVIDIA)
        self._nodes: dict[str, Node] = {}

    async def probe(self, device: PciDevice) -> None:
        """Take the GPU; its nodes are made by nvidia-modprobe and outlive the module."""
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
