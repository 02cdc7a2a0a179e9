"""The one step of a Reclaim that is not ours to undo: a card that somebody else bound to vfio-pci gets its native driver.

Kernel command line (vfio-pci.ids=), driverctl and libvirt leave cards like that.
"""

from __future__ import annotations

import contextlib

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import VFIO_DRIVER
from gpuhandoff.steps.bind_vfio import refuse_guest
from gpuhandoff.steps.pci_function import (
    DEVICES,
    SETTLE,
    driver_of,
    on_vfio,
    probe,
    read_override,
    unbind,
    write_override,
)
from gpuhandoff.steps.proof import refuse_dead


class ReleaseFunctions:
    """Clears the override, unbinds vfio-pci, has udev's rules load the driver by modalias, probes."""

    name = "release-functions"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember override and driver of every function, and which of the modules are still to be loaded."""
        return {
            "overrides": {address: await read_override(host, address) for address in arguments["functions"]},
            "drivers": {address: driver_of(host, address) or "" for address in arguments["functions"]},
            "modules": [name for name in arguments["modules"] if not host.kernel.exists(f"/sys/module/{name}")],
        }

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Release consumers first, probe the display function first."""
        functions = list(arguments["functions"])
        await refuse_guest(host, functions)
        await refuse_dead(host, functions)
        for address in sorted(functions, reverse=True):
            await write_override(host, address, "")
            if on_vfio(host, address):
                await unbind(host, address)
        for name in arguments["modules"]:
            await host.kernel.load_module(str(name))
        for address in functions:
            if driver_of(host, address) is None:
                with contextlib.suppress(FileNotFoundError):  # built in, or the host has no driver for it
                    await host.kernel.load_module(host.kernel.read(f"{DEVICES}/{address}/modalias"))
                await host.kernel.write("/sys/bus/pci/drivers_probe", address)
        display = functions[0]
        if not await host.until(lambda: driver_of(host, display) not in {None, VFIO_DRIVER}, timeout=SETTLE):
            found = driver_of(host, display)
            why = f"{found} takes it again" if found else "no driver of this host wants it"
            raise RolledBackError(f"{display} was released from vfio-pci, but {why}.")

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Give the functions back to whom they were with. What modprobe found by modalias stays, with nothing to drive."""
        for address in sorted(arguments["functions"], reverse=True):
            await write_override(host, address, saved["drivers"][address] or saved["overrides"][address])
            was = saved["drivers"][address]
            if driver_of(host, address) != (was or None):
                await unbind(host, address)
                if was:
                    await probe(host, address, was)
            await write_override(host, address, saved["overrides"][address])
        for name in reversed(saved["modules"]):
            with contextlib.suppress(OSError):  # gone, or somebody else uses it by now
                await host.kernel.remove_module(name)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether no function is on vfio-pci."""
        return not any(on_vfio(host, address) for address in arguments["functions"])
