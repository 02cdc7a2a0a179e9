"""Step 9: vfio-pci takes every function."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Collection

from gpuhandoff.errors import InUseError, UnsupportedError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import VFIO_DRIVER
from gpuhandoff.steps.holders import name_open
from gpuhandoff.steps.pci_function import (
    DEVICES,
    DRIVERS,
    driver_of,
    iommu_group_of,
    on_vfio,
    probe,
    unbind,
)

NEEDED = ("vfio_pci", "vfio_iommu_type1")
"""vfio_iommu_type1 has to be asked for: its softdep may not fire, and the guest then fails with ENODEV (kernel.md 3)."""
FAMILY = ("vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "vfio", "iommufd", "irqbypass")
"""What these bring with them, in the order in which it can be removed again."""

PATIENCE = 0.2
"""Seconds for the last user of a module to let go: references drop shortly after descriptors do."""

log = logging.getLogger(__name__)


class BindVfio:
    """Binds, verifies, and keeps the functions awake: vfio-pci lets idle ones sleep (kernel.md 4.2)."""

    name = "bind-vfio"
    needs_gpu = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember each function's driver and which modules of the family are there."""
        return {
            "drivers": {address: driver_of(host, address) or "" for address in arguments["functions"]},
            "modules": [name for name in FAMILY if host.kernel.exists(f"/sys/module/{name}")],
        }

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Load the modules, then unbind what is left and probe, consumers first."""
        for name in NEEDED:
            if not host.kernel.exists(f"/sys/module/{name}"):
                await self._load(host, name)
        for address in sorted(arguments["functions"], reverse=True):
            if not on_vfio(host, address):
                await unbind(host, address)
                await probe(host, address, VFIO_DRIVER)
        for address in arguments["functions"]:
            control = f"{DEVICES}/{address}/power/control"
            if host.kernel.exists(control):
                await host.kernel.write(control, "on")

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Unbind those that were not on vfio-pci before, never under a guest, and remove what was loaded for it."""
        mine = [address for address, driver in saved["drivers"].items() if driver != VFIO_DRIVER and on_vfio(host, address)]
        await refuse_guest(host, mine)
        for address in sorted(mine, reverse=True):
            await unbind(host, address)
        await _remove_modules(host, [name for name in FAMILY if name not in saved["modules"]])

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether every function is on vfio-pci."""
        return all(on_vfio(host, address) for address in arguments["functions"])

    async def _load(self, host: Host, name: str) -> None:
        try:
            await host.kernel.load_module(name)
        except FileNotFoundError as error:
            raise UnsupportedError(
                f"The running kernel has no module {name}. After an upgrade of the kernel, reboot and try again."
            ) from error
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise UnsupportedError(f"The module {name} cannot be loaded: {error.strerror}.") from error


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


async def _remove_modules(host: Host, names: Collection[str]) -> None:
    """Remove what was loaded for this GPU alone; one that the kernel does not let go stays, and does no harm.

    A device that is bound and not open does not keep vfio_pci: delete_module would take it from under another GPU.
    """
    if any(":" in name for name in host.kernel.entries(f"{DRIVERS}/{VFIO_DRIVER}")):
        log.info("other devices are on %s: its modules stay", VFIO_DRIVER)
        return
    for last in (False, True):
        for name in names:
            if host.kernel.exists(f"/sys/module/{name}"):
                try:
                    await host.kernel.remove_module(name)
                except OSError as error:
                    log.log(logging.INFO if last else logging.DEBUG, "the module %s stays: %s", name, error.strerror)
        if last or not any(host.kernel.exists(f"/sys/module/{name}") for name in names):
            return
        await asyncio.sleep(PATIENCE)
