"""SR-IOV: a card that is shared out as virtual functions."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from gpuhandoff.simulation.tree import failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.pci import PciDevice


def virtual_functions(machine: SimulatedMachine, physical: PciDevice) -> list[PciDevice]:
    """Return the virtual functions that a function has now."""
    return [one for one in machine.pci.devices.values() if one.physical is physical]


def add_virtual_function(machine: SimulatedMachine, device: PciDevice, physical: PciDevice) -> None:
    """Link it and its physical function to each other, and offer the way to remove all of them."""
    path = f"{physical.path}/sriov_numvfs"

    async def write(text: str) -> None:
        """Remove all. The kernel refuses any other number while there are some; that a driver makes new ones is left out."""
        found = virtual_functions(machine, physical)
        if text.strip() != "0":
            raise failure(errno.EBUSY if found else errno.ENOENT, path)
        for number, one in reversed(list(enumerate(found))):
            machine.tree.remove(f"{physical.path}/virtfn{number}")
            await machine.pci.remove(one)

    machine.tree.link(f"{device.path}/physfn", physical.path)
    machine.tree.link(f"{physical.path}/virtfn{len(virtual_functions(machine, physical)) - 1}", device.path)
    machine.tree.text(path, lambda: f"{len(virtual_functions(machine, physical))}\n", write)
