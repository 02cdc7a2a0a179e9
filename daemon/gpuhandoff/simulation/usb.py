"""USB controllers and what is plugged into them: with its driver all of it goes, whoever uses it (kernel.md 1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.simulation.drivers import Driver

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.pci import PciDevice

DEVICE_MAJOR = 189
HUBS = 2
"""Root hubs of a controller: one for USB 2, one for what came after it."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """A device. `port`: the way to it, "1.2" through a hub in port 1; `disks`: its block devices, the whole one first."""

    model: str
    vendor: str = ""
    port: str = "1"
    device_class: int = 0
    disks: tuple[str, ...] = ()


HUB = Plugged("USB2.1 Hub", device_class=9)


class Usb:
    """What is plugged in by controller, and shown while the controller has a driver."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._plugged: dict[str, list[Plugged]] = {}
        self._numbers: dict[str, tuple[int, ...]] = {}
        """The buses of a controller that has a driver."""

    def plug(self, controller: PciDevice, *devices: Plugged) -> None:
        """Plug devices in, a hub before what is behind it."""
        self._plugged.setdefault(controller.path, []).extend(devices)
        if controller.path in self._numbers:
            for device in devices:
                self._enumerate(controller, device)

    def add(self, controller: PciDevice) -> None:
        """Register the root hubs and find what is plugged in."""
        tree = self._machine.tree
        for _ in range(HUBS):
            taken = [number for numbers in self._numbers.values() for number in numbers]
            number = next(one for one in range(1, len(taken) + 2) if one not in taken)
            self._numbers[controller.path] = (*self._numbers.get(controller.path, ()), number)
            tree.text(f"{controller.path}/usb{number}/bDeviceClass", "09\n")
        for device in self._plugged.get(controller.path, ()):
            self._enumerate(controller, device)

    def remove(self, controller: PciDevice) -> None:
        """Disconnect everything, what is mounted included (usb_remove_hcd)."""
        machine = self._machine
        for device in reversed(self._plugged.get(controller.path, ())):
            path = self._path(controller, device)
            machine.disks.vanish(device.disks)
            machine.tree.remove(f"/run/udev/data/c{machine.kernel.read(f'{path}/dev')}")
            machine.uevents.emit("remove", path, "usb")
        for number in self._numbers.pop(controller.path, ()):
            machine.tree.remove(f"{controller.path}/usb{number}")

    def connected(self) -> list[str]:
        """Return what the host has."""
        return sorted(
            f"{device.vendor} {device.model}".strip() for path in self._numbers for device in self._plugged.get(path, ())
        )

    def _path(self, controller: PciDevice, device: Plugged) -> str:
        bus = self._numbers[controller.path][0]
        ways = device.port.split(".")
        ports = [f"{bus}-{'.'.join(ways[: place + 1])}" for place in range(len(ways))]
        return "/".join((controller.path, f"usb{bus}", *ports))

    def _enumerate(self, controller: PciDevice, device: Plugged) -> None:
        machine, path = self._machine, self._path(controller, device)
        minor = (self._numbers[controller.path][0] - 1) * 128 + len(machine.tree.names("/run/udev/data")) + 1
        machine.tree.text(f"{path}/bDeviceClass", f"{device.device_class:02x}\n")
        machine.tree.text(f"{path}/idVendor", "0781\n")
        machine.tree.text(f"{path}/idProduct", "558c\n")
        machine.tree.text(f"{path}/dev", f"{DEVICE_MAJOR}:{minor}\n")
        model, vendor = (text.replace(" ", r"\x20") for text in (device.model, device.vendor))
        machine.tree.text(f"/run/udev/data/c{DEVICE_MAJOR}:{minor}", f"E:ID_VENDOR_ENC={vendor}\nE:ID_MODEL_ENC={model}\n")
        machine.uevents.emit("add", path, "usb")
        interface = f"{path}/{path.rpartition('/')[2]}:1.0"
        machine.tree.text(f"{interface}/bInterfaceClass", "08\n" if device.disks else "03\n")
        machine.disks.appear(f"{interface}/host6/target6:0:0/6:0:0:0", device.disks)


class UsbDriver(Driver):
    """xhci_hcd."""

    async def probe(self, device: PciDevice) -> None:
        """Find what is plugged in."""
        self.machine.usb.add(device)

    async def remove(self, device: PciDevice) -> None:
        """Disconnect it."""
        self.machine.usb.remove(device)
