"""Every function is reserved for vfio-pci while its native driver is still bound.

So no other driver can grab a function between the drivers (kernel.md 1.2). Undone last of the GPU's own steps: what
drivers change about a function when they come and go, its power attributes, is set back here as well, and functions that
somebody else's probe brought to vfio-pci because of the override leave it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import VFIO_DRIVER
from gpuhandoff.steps.bind_vfio import refuse_guest
from gpuhandoff.steps.pci_function import DEVICES, on_vfio, read_override, unbind, write_override

POWER = ("d3cold_allowed", "power/control")
"""In the order in which they are restored: a function that may sleep deeply is let sleep last."""


class ClaimFunctions:
    """Sets driver_override, and keeps functions and their port out of D3cold (kernel.md 4.2)."""

    name = "claim-functions"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember override, power attributes and whose every function is, and the power attributes of the port above."""
        functions: dict[str, Any] = {}
        for address in arguments["functions"]:
            functions[address] = {
                "override": await read_override(host, address),
                "power": _power(host, address),
                "vfio": on_vfio(host, address),
            }
        port = str(arguments["port"])
        return {"functions": functions, "port": _power(host, port) if port else {}}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Forbid D3cold and set the override."""
        for address in [*arguments["functions"], *([arguments["port"]] if arguments["port"] else [])]:
            attribute = f"{DEVICES}/{address}/d3cold_allowed"
            if host.kernel.exists(attribute):
                await host.kernel.write(attribute, "0")
        for address in arguments["functions"]:
            await write_override(host, address, VFIO_DRIVER)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Set everything back as it was; a function that is gone has nothing to set back."""
        for address, was in saved["functions"].items():
            if not host.kernel.exists(f"{DEVICES}/{address}"):
                continue
            if await read_override(host, address) != was["override"]:
                await write_override(host, address, was["override"])
            if on_vfio(host, address) and not was["vfio"]:  # it had no driver, or unload-driver would have given it back
                await refuse_guest(host, [address])
                await unbind(host, address)
            await _restore_power(host, address, was["power"])
        port = str(arguments["port"])
        if port:
            await _restore_power(host, port, saved["port"])

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether every function is reserved."""
        for address in arguments["functions"]:
            if await read_override(host, address) != VFIO_DRIVER:
                return False
        return True


def _power(host: Host, address: str) -> dict[str, str]:
    values = {}
    for name in POWER:
        with contextlib.suppress(OSError):
            values[name] = host.kernel.read(f"{DEVICES}/{address}/{name}").strip()
    return values


async def _restore_power(host: Host, address: str, was: dict[str, str]) -> None:
    now = _power(host, address)
    for name in POWER:
        if name in was and now.get(name) not in {None, was[name]}:
            await host.kernel.write(f"{DEVICES}/{address}/{name}", was[name])
            if _power(host, address).get(name) != was[name]:
                raise RolledBackError(f"{name} of {address} cannot be set back to {was[name]}.")
