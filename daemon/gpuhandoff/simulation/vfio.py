"""VFIO groups: their nodes, and the guests that own them."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from gpuhandoff.simulation.tree import Node, failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.pci import PciDevice

VFIO_MAJOR = 511


class Vfio:
    """One node for each group that has a device on vfio-pci."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._groups: dict[int, Node] = {}
        self._members: dict[str, int] = {}
        self.container = Node("/dev/vfio/vfio", os.makedev(10, 196), "vfio")

    def is_open(self, group: int) -> bool:
        """Whether a guest has the group, which then owns every device in it (kernel.md 3)."""
        node = self._groups.get(group)
        return node is not None and bool(self._machine.processes.holders([node]))

    def add(self, device: PciDevice) -> None:
        """A device has come to vfio-pci."""
        machine, group = self._machine, device.group
        if group not in self._groups:
            node = Node(f"/dev/vfio/{group}", os.makedev(VFIO_MAJOR, group), "vfio_pci", f"/sys/kernel/iommu_groups/{group}")
            self._groups[group] = node
            path = f"/sys/devices/virtual/vfio/{group}"
            machine.tree.text(f"{path}/dev", f"{VFIO_MAJOR}:{group}\n")
            machine.add_node(node, path, f"/sys/class/vfio/{group}")
            machine.uevents.emit("add", path, "vfio")
        number = machine.lowest_free(self._members.values())
        self._members[device.path] = number
        machine.tree.text(f"{device.path}/vfio-dev/vfio{number}/dev", "0:0\n")
        machine.uevents.emit("add", f"{device.path}/vfio-dev/vfio{number}", "vfio-dev")

    def remove(self, device: PciDevice) -> None:
        """A device leaves vfio-pci; the last one takes the group's node along."""
        machine, group = self._machine, device.group
        number = self._members.pop(device.path)
        machine.tree.remove(f"{device.path}/vfio-dev")
        machine.uevents.emit("remove", f"{device.path}/vfio-dev/vfio{number}", "vfio-dev")
        if not any(machine.pci.at(name).group == group for name in self._on_vfio()):
            node = self._groups.pop(group)
            machine.remove_node(node, f"/sys/class/vfio/{group}")
            machine.tree.remove(f"/sys/devices/virtual/vfio/{group}")
            machine.uevents.emit("remove", f"/sys/devices/virtual/vfio/{group}", "vfio")

    def open(self, group: int) -> Node:
        """Return the node that a guest may open now; raises the OSError that QEMU would meet (kernel.md 3)."""
        path = f"/dev/vfio/{group}"
        node = self._groups.get(group)
        if node is None:
            raise failure(errno.ENOENT, path)
        if self.is_open(group):
            raise failure(errno.EBUSY, path)
        for device in self._machine.pci.devices.values():
            if device.group == group and device.driver is not None and not device.driver.shares_group:
                raise failure(errno.EPERM, path)
        if "vfio_iommu_type1" not in self._machine.modules.loaded:
            raise failure(errno.ENODEV, path)
        return node

    def pins(self, module: str) -> int:
        """How many references guests hold on the IOMMU backend."""
        return len(self._machine.processes.holders([self.container])) if module == "vfio_iommu_type1" else 0

    def _on_vfio(self) -> list[str]:
        return [path.rsplit("/", 1)[-1] for path in self._members]


def load_vfio(machine: SimulatedMachine, _name: str) -> None:
    """Make the container node."""
    machine.add_node(machine.vfio.container, "/sys/devices/virtual/misc/vfio", "/sys/class/misc/vfio")


def unload_vfio(machine: SimulatedMachine, _name: str) -> None:
    """Take it away."""
    machine.remove_node(machine.vfio.container, "/sys/class/misc/vfio")
