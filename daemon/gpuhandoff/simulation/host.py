"""A Host whose doors lead into a simulated machine."""

from __future__ import annotations

from gpuhandoff.host import Host
from gpuhandoff.host.logins import Logins
from gpuhandoff.host.units import Units
from gpuhandoff.messages import Bus
from gpuhandoff.simulation.descriptors import SimulatedDescriptors
from gpuhandoff.simulation.kernel import SimulatedKernel
from gpuhandoff.simulation.machine import SimulatedMachine


def simulated_host(machine: SimulatedMachine, bus: Bus) -> Host:
    """Return the machine's Host for one daemon; `bus` is its connection to where the stand-ins answer."""
    return Host(
        SimulatedKernel(machine),
        machine.processes,
        machine.uevents,
        machine.openings,
        SimulatedDescriptors(machine.descriptors),
        Units(bus),
        Logins(bus),
    )
