"""Every function is bound to vfio-pci, which load-vfio has loaded."""

from __future__ import annotations

from collections.abc import Collection

from gpuhandoff.errors import InUseError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import VFIO_DRIVER
from gpuhandoff.steps.holders import name_open
from gpuhandoff.steps.pci_function import (
    DEVICES,
    driver_of,
    iommu_group_of,
    on_vfio,
    probe,
    unbind,
)


class BindVfio:
    """Binds, verifies, and keeps the functions awake: vfio-pci lets idle ones sleep (kernel.md 4.2)."""

    name = "bind-vfio"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember each function's driver."""
        return {"drivers": {address: driver_of(host, address) or "" for address in arguments["functions"]}}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Unbind what is left and probe, consumers first."""
        for address in sorted(arguments["functions"], reverse=True):
            if not on_vfio(host, address):
                await unbind(host, address)
                await probe(host, address, VFIO_DRIVER)
        for address in arguments["functions"]:
            control = f"{DEVICES}/{address}/power/control"
            if host.kernel.exists(control):
                await host.kernel.write(control, "on")

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Unbind those that were not on vfio-pci before, never under a guest."""
        mine = [address for address, driver in saved["drivers"].items() if driver != VFIO_DRIVER and on_vfio(host, address)]
        await refuse_guest(host, mine)
        for address in sorted(mine, reverse=True):
            await unbind(host, address)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether every function is on vfio-pci."""
        return all(on_vfio(host, address) for address in arguments["functions"])


async def refuse_guest(host: Host, functions: Collection[str]) -> None:
    """Raise InUseError when a VMM has one of the functions open: the unbind would wait for it (kernel.md 1.4).

    It has the group open, or, with iommufd, the function's own node (kernel.md 3).
    """
    nodes = {f"/dev/vfio/{group}" for address in functions if (group := iommu_group_of(host, address)) is not None}
    for address in functions:
        nodes |= {f"/dev/vfio/devices/{name}" for name in host.kernel.entries(f"{DEVICES}/{address}/vfio-dev")}
    holding = await host.processes.holding(sorted(nodes)) if nodes else ()
    if holding:
        raise InUseError(f"A virtual machine still has the GPU: {name_open(holding)}. Shut it down first.")
