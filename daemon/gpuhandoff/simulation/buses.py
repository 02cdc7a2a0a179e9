"""I²C buses and the nodes of i2c-dev."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from gpuhandoff.simulation.tree import Node

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.pci import PciDevice

I2C_MAJOR = 89


class Buses:
    """The adapters of each device; an open /dev/i2c-N holds the adapter itself, not just its module (kernel.md 1.4)."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._adapters: dict[str, dict[int, Node]] = {}

    def add(self, device: PciDevice, module: str | None, names: Sequence[str]) -> None:
        """Register adapters of these names."""
        machine = self._machine
        for name in names:
            number = machine.lowest_free(n for nodes in self._adapters.values() for n in nodes)
            path = f"{device.path}/i2c-{number}"
            machine.tree.text(f"{path}/name", f"{name}\n")
            machine.tree.text(f"{path}/i2c-dev/i2c-{number}/dev", f"{I2C_MAJOR}:{number}\n")
            machine.tree.link(f"{path}/i2c-dev/i2c-{number}/device", path)
            machine.tree.link(f"/sys/bus/i2c/devices/i2c-{number}", path)
            node = Node(f"/dev/i2c-{number}", os.makedev(I2C_MAJOR, number), module, device.path)
            machine.add_node(node, f"{path}/i2c-dev/i2c-{number}", f"/sys/class/i2c-dev/i2c-{number}")
            self._adapters.setdefault(device.path, {})[number] = node
            machine.uevents.emit("add", path, "i2c")

    async def remove(self, device: PciDevice) -> None:
        """Remove a device's adapters, each when nobody has it open any more."""
        machine = self._machine
        for number, node in self._adapters.get(device.path, {}).items():
            machine.remove_node(node, f"/sys/class/i2c-dev/i2c-{number}")
            await machine.waits.until(partial(self._closed, node), "i2c_del_adapter")
            machine.tree.remove(f"/sys/bus/i2c/devices/i2c-{number}")
            machine.tree.remove(f"{device.path}/i2c-{number}")
            machine.uevents.emit("remove", f"{device.path}/i2c-{number}", "i2c")
        self._adapters.pop(device.path, None)

    def _closed(self, node: Node) -> bool:
        return not self._machine.processes.holders([node])
