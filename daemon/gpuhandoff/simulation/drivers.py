"""PCI drivers that show no picture: what their probe and remove do, and what remove waits for (kernel.md 1.4)."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuhandoff.simulation.pci import BRIDGE
from gpuhandoff.simulation.tree import failure
from gpuhandoff.simulation.virtual_functions import virtual_functions

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.pci import PciDevice


class Driver:
    """A driver that binds by id or class and asks nothing more: NVMe, network, USB, bridges."""

    probe_seconds = 0.02
    remove_seconds = 0.02
    shares_group = False
    """driver_managed_dma: may stay in a group that a guest owns (kernel.md 1.2)."""
    idles = False
    """Whether it lets an idle device suspend."""

    def __init__(
        self,
        machine: SimulatedMachine,
        name: str,
        module: str | None,
        *,
        ids: Iterable[tuple[int, int]] = (),
        classes: Iterable[int] = (),
        vendors: Iterable[int] = (),
    ) -> None:
        self.machine = machine
        self.name = name
        self.module = module
        self.ids = set(ids)
        self._classes = frozenset(classes)
        self._vendors = frozenset(vendors)

    def matches(self, device: PciDevice) -> bool:
        """Tell whether the driver's table has the device."""
        if (device.vendor, device.device) in self.ids:
            return True
        return device.pci_class >> 8 in self._classes and (not self._vendors or device.vendor in self._vendors)

    async def probe(self, device: PciDevice) -> None:
        """Take the device; raises OSError."""

    async def remove(self, device: PciDevice) -> None:
        """Let the device go. There is no way to fail, only to take for ever (kernel.md fact 5)."""

    def uses(self, device: PciDevice) -> int:
        """How many references on the module this binding holds by itself."""
        del device
        return 0


class BridgeDriver(Driver):
    """pcieport, which may share a group with a guest's devices."""

    shares_group = True
    idles = False


class BusDriver(Driver):
    """An I²C controller (the UCSI function of a GPU): remove waits for whoever has /dev/i2c-N open (kernel.md 1.4)."""

    async def probe(self, device: PciDevice) -> None:
        """Register the bus."""
        self.machine.buses.add(device, self.module, (f"{self.name} {device.address}",))

    async def remove(self, device: PciDevice) -> None:
        """Remove the bus."""
        await self.machine.buses.remove(device)


class VfioDriver(Driver):
    """vfio-pci: binds what is overridden to it, keeps idle devices asleep, never lets go of what a guest has open."""

    shares_group = True
    idles = True

    async def probe(self, device: PciDevice) -> None:
        """Evict a firmware framebuffer, allow runtime suspend, make the group's node."""
        if not self.machine.iommu or device.pci_class >> 8 == BRIDGE:
            raise failure(errno.EINVAL, f"{device.path}/driver")
        if virtual_functions(self.machine, device):  # "Cannot bind to PF with SR-IOV enabled" (kernel.md 3)
            raise failure(errno.EBUSY, f"{device.path}/driver")
        if device.is_vga:
            self.machine.graphics.evict_firmware(device)
        self.machine.vfio.add(device)
        device.control = "auto"

    async def remove(self, device: PciDevice) -> None:
        """Wait until the guest has let go, remove the node, forbid runtime suspend."""
        await self.machine.waits.until(lambda: not self.machine.vfio.is_open(device.group), "vfio_unregister_group_dev")
        self.machine.vfio.remove(device)
        device.control = "on"


class AudioDriver(Driver):
    """snd_hda_intel: /dev/snd comes after `bind`, and remove sleeps until all of the card is closed (fact 6)."""

    idles = True

    async def probe(self, device: PciDevice) -> None:
        """Start looking for codecs, which takes longer than probe does (kernel.md 9)."""
        self.machine.sound.expect_card(device, self.module)

    async def remove(self, device: PciDevice) -> None:
        """Take the card's nodes away and wait for those who have them open."""
        nodes = self.machine.sound.remove_card(device)
        await self.machine.waits.until(lambda: not self.machine.processes.holders(nodes), "snd_card_free")
