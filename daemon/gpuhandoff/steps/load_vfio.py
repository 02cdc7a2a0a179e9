"""The modules of VFIO are loaded, before the desktop ends and before any function is reserved for vfio-pci.

A kernel that refuses them then costs nothing. And a driver that is loaded later locks every function that it could take:
one that hangs in an unbind, reserved already, would keep vfio-pci from ever being loaded, for any GPU (kernel.md 1.5).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Collection

from gpuhandoff.errors import UnsupportedError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import VFIO_DRIVER
from gpuhandoff.steps.pci_function import DRIVERS

NEEDED = ("vfio_pci", "vfio_iommu_type1")
"""vfio_iommu_type1 has to be asked for: its softdep may not fire, and the guest then fails with ENODEV (kernel.md 3)."""
FAMILY = ("vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "vfio", "iommufd", "irqbypass")
"""What these bring with them, in the order in which it can be removed again."""

PATIENCE = 0.2
"""Seconds for the last user of a module to let go: references drop shortly after descriptors do."""

log = logging.getLogger(__name__)


class LoadVfio:
    """Loads what is missing, and removes what was loaded for this GPU alone."""

    name = "load-vfio"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember which modules of the family are there."""
        return {"modules": [name for name in FAMILY if host.kernel.exists(f"/sys/module/{name}")]}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Load the modules that are not there."""
        for name in NEEDED:
            if not _live(host, name):
                await _load(host, name)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Remove what was not there; one that the kernel does not let go stays, and does no harm."""
        await _remove(host, [name for name in FAMILY if name not in saved["modules"]])

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether the modules are there."""
        return all(_live(host, name) for name in NEEDED)


def _live(host: Host, name: str) -> bool:
    """A module has its directory while it still comes; a built-in one has no state."""
    try:
        return host.kernel.read(f"/sys/module/{name}/initstate").strip() == "live"
    except OSError:
        return host.kernel.exists(f"/sys/module/{name}")


async def _load(host: Host, name: str) -> None:
    try:
        await host.kernel.load_module(name)
    except FileNotFoundError as error:
        raise UnsupportedError(
            f"The running kernel has no module {name}. After an upgrade of the kernel, reboot and try again."
        ) from error
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise UnsupportedError(f"The module {name} cannot be loaded: {error.strerror}.") from error


async def _remove(host: Host, names: Collection[str]) -> None:
    """Remove modules, unless other devices are on vfio-pci.

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
