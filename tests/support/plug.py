"""A card is taken out of a simulated machine, and put back: what a reset that fails, or a cable, does to a real one."""

from __future__ import annotations

from gpuhandoff.simulation.functions import add_function
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.pci import PciDevice

FUNCTIONS = ("0000:01:00.0", "0000:01:00.1")


async def pull(machine: SimulatedMachine) -> list[PciDevice]:
    """Take the card out; return its functions."""
    taken = []
    for address in reversed(FUNCTIONS):
        device = machine.pci.devices[address]
        await machine.pci.remove(device)
        device.override, device.control, device.d3cold_allowed = "", "on", True  # the next one is a new device
        taken.append(device)
    return taken[::-1]


async def push(machine: SimulatedMachine, functions: list[PciDevice]) -> None:
    """Put it back: udev loads its driver, which takes it."""
    for device in functions:
        add_function(machine, device)
    for name in ("nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"):
        if name not in machine.modules.loaded:
            await machine.modules.load(name)
    for device in functions:
        await machine.pci.probe(str(device.address))
