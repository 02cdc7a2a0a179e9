"""PCI devices and drivers, and the binding interfaces of sysfs with their errnos (kernel.md 1)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.tree import failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.drivers import Driver
    from gpuhandoff.simulation.machine import SimulatedMachine

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
VGA = 0x030000
BRIDGE = 0x0604
DISPLAY_CLASSES = (0x0300, 0x0302, 0x0380)
NVIDIA, AMD, INTEL, QUMRANET = 0x10DE, 0x1002, 0x8086, 0x1AF4


@dataclass(eq=False, slots=True)
class PciDevice:
    """One function and what the kernel keeps about it.

    `driver` is the kernel's pointer (dev->driver); the `driver` link in sysfs comes before probe and goes before remove
    (kernel.md fact 3), so the two differ while a driver works.
    """

    address: PciAddress
    vendor: int
    device: int
    pci_class: int
    group: int
    parent: PciDevice | None = None
    physical: PciDevice | None = None
    """Whose virtual function it is (SR-IOV)."""
    subsystem: tuple[int, int] = (0x1043, 0x8800)
    name: str = ""
    boot_vga: bool = False
    connectors: tuple[tuple[str, bool], ...] = ()
    """Name and whether a screen is attached."""
    reset_method: str = ""
    bars: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    """Number, size, and the sizes to which it can be set, in MiB."""
    dead: bool = False
    """It does not answer any more, as after a reset that failed (kernel.md 4.2): no driver takes it."""
    homeless: bool = False
    """A window that is resized finds no place (kernel.md 5)."""
    wakes: int = 0
    """How often somebody has woken it by looking into its registers while it slept."""
    control: str = "on"
    d3cold_allowed: bool = True
    override: str = ""
    driver: Driver | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def path(self) -> str:
        """The device's physical directory in sysfs."""
        above = self.parent.path if self.parent else f"/sys/devices/pci{self.address.domain:04x}:00"
        return f"{above}/{self.address}"

    @property
    def alias(self) -> str:
        """What modules are found by."""
        numbers = f"v{self.vendor:08X}d{self.device:08X}sv{self.subsystem[0]:08X}sd{self.subsystem[1]:08X}"
        kind = f"{self.pci_class:06X}"
        return f"pci:{numbers}bc{kind[:2]}sc{kind[2:4]}i{kind[4:]}"

    @property
    def is_vga(self) -> bool:
        """Whether it is a VGA-compatible controller; a 3D controller (0302) is not (kernel.md 2)."""
        return self.pci_class == VGA


class PciBus:
    """The devices in ascending order and the registered drivers."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._tree = machine.tree
        self.devices: dict[str, PciDevice] = {}
        self.drivers: dict[str, Driver] = {}
        self._tree.directory(DEVICES)
        self._tree.trigger("/sys/bus/pci/drivers_probe", self.probe)

    def at(self, address: str) -> PciDevice:
        """Return the device at a full address."""
        return self.devices[address]

    def device_of(self, path: str) -> PciDevice | None:
        """Return the device that owns an attribute such as driver_override."""
        return self.devices.get(self._tree.resolve(path).rsplit("/", 2)[-2])

    def matching(self, device: PciDevice) -> list[Driver]:
        """Return the drivers that may bind a device; an override allows exactly one name, ids or not."""
        if device.override:
            return [driver for driver in self.drivers.values() if driver.name == device.override]
        return [driver for driver in self.drivers.values() if driver.matches(device)]

    async def register(self, driver: Driver) -> None:
        """Add a driver, which probes every unbound device that matches, all at once (kernel.md 1.2)."""
        self.drivers[driver.name] = driver
        base = f"{DRIVERS}/{driver.name}"
        self._tree.trigger(f"{base}/bind", lambda text: self.bind(driver, text))
        self._tree.trigger(f"{base}/unbind", lambda text: self.unbind(driver, text))
        self._tree.trigger(f"{base}/new_id", lambda text: self._new_id(driver, text))
        self._tree.trigger(f"{base}/remove_id", lambda text: driver.ids.discard(_id(text)))
        if driver.module is not None:
            self._tree.link(f"{base}/module", f"/sys/module/{driver.module}")
        await self._attach_all(driver)
        self._machine.uevents.emit("add", base, "drivers")

    async def unregister(self, driver: Driver) -> None:
        """Take a driver away from all its devices and remove it."""
        for device in self.devices.values():
            if device.driver is driver:
                async with self._locked(device):
                    await self._detach(device, driver)
        del self.drivers[driver.name]
        self._tree.remove(f"{DRIVERS}/{driver.name}")
        self._machine.uevents.emit("remove", f"{DRIVERS}/{driver.name}", "drivers")

    async def remove(self, device: PciDevice) -> None:
        """Take a function off the bus; its driver goes first."""
        if device.driver is not None:
            async with self._locked(device):
                await self._detach(device, device.driver)
        self._tree.remove(f"{DEVICES}/{device.address}")
        self._tree.remove(device.path)
        del self.devices[str(device.address)]
        self._machine.uevents.emit("remove", device.path, "pci")

    async def unbind(self, driver: Driver, text: str) -> None:
        """Write to a driver's `unbind`: it never reports that a driver could not cope (kernel.md fact 5)."""
        device = self.devices.get(text.strip())
        if device is None or device.driver is not driver:
            raise failure(errno.ENODEV, f"{DRIVERS}/{driver.name}/unbind")
        async with self._locked(device):
            await self._detach(device, driver)

    async def bind(self, driver: Driver, text: str) -> None:
        """Write to a driver's `bind`, which does report what probe says."""
        path = f"{DRIVERS}/{driver.name}/bind"
        device = self.devices.get(text.strip())
        if device is None or driver not in self.matching(device):
            raise failure(errno.ENODEV, path)
        async with self._locked(device):
            if device.driver is not None or self._owned(device, driver):
                raise failure(errno.EBUSY, path)
            await self._attach(device, driver)

    async def probe(self, text: str) -> None:
        """Write to `drivers_probe`, which calls it success when nothing matched and on a stuck device (fact 4)."""
        device = self.devices.get(text.strip())
        if device is None:
            raise failure(errno.ENODEV, "/sys/bus/pci/drivers_probe")
        if device.driver is not None:
            return
        async with self._locked(device):
            for driver in self.matching(device):
                if device.driver is None:
                    if self._owned(device, driver):
                        raise failure(errno.EINVAL, "/sys/bus/pci/drivers_probe")
                    await self._try(device, driver)

    @contextlib.asynccontextmanager
    async def _locked(self, device: PciDevice) -> AsyncIterator[None]:
        """Hold the device lock, as everything does that binds or unbinds; a stuck driver keeps it (kernel.md 1.5)."""
        await self._machine.waits.until(lambda: not device.lock.locked(), "__device_driver_lock")
        try:
            async with device.lock:
                yield
        finally:
            self._machine.waits.wake()

    def _owned(self, device: PciDevice, driver: Driver) -> bool:
        """Whether a guest owns the device's group, which shuts out drivers of the host (kernel.md 3)."""
        return not driver.shares_group and self._machine.vfio.is_open(device.group)

    async def _new_id(self, driver: Driver, text: str) -> None:
        driver.ids.add(_id(text))
        await self._attach_all(driver)

    async def _attach_all(self, driver: Driver) -> None:
        """Try every device that matches: each is locked first, also one that is bound (driver_attach)."""
        for device in self.devices.values():
            if driver in self.matching(device):
                async with self._locked(device):
                    if device.driver is None and not self._owned(device, driver):
                        await self._try(device, driver)

    async def _try(self, device: PciDevice, driver: Driver) -> None:
        """Probe as the driver core does by itself: a failure is logged and forgotten."""
        try:
            await self._attach(device, driver)
        except OSError:
            return

    async def _attach(self, device: PciDevice, driver: Driver) -> None:
        device.driver = driver
        self._tree.link(f"{device.path}/driver", f"{DRIVERS}/{driver.name}")
        self._tree.link(f"{DRIVERS}/{driver.name}/{device.address}", device.path)
        try:
            await self._machine.waits.takes(driver.probe_seconds)
            if device.dead and not driver.shares_group:
                raise failure(errno.EIO, f"{DRIVERS}/{driver.name}/bind")
            await driver.probe(device)
        except OSError:
            self._unlink(device, driver)
            device.driver = None
            raise
        self._machine.uevents.emit("bind", device.path, "pci", driver.name)
        self._machine.waits.wake()

    async def _detach(self, device: PciDevice, driver: Driver) -> None:
        if device.driver is not driver:
            return
        self._unlink(device, driver)
        await self._machine.waits.takes(driver.remove_seconds)
        await driver.remove(device)
        device.driver = None
        self._machine.uevents.emit("unbind", device.path, "pci")
        self._machine.waits.wake()

    def _unlink(self, device: PciDevice, driver: Driver) -> None:
        self._tree.remove(f"{device.path}/driver")
        self._tree.remove(f"{DRIVERS}/{driver.name}/{device.address}")


def _id(text: str) -> tuple[int, int]:
    vendor, device = text.split()[:2]
    return int(vendor, 16), int(device, 16)
