"""Framebuffers, consoles, firmware framebuffers and DRM nodes (kernel.md 2, 9)."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.simulation.tree import Node, failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.pci import PciDevice

DRM_MAJOR = 226
FB_MAJOR = 29
CONSOLES = "/sys/devices/virtual/vtconsole"
FIRMWARE_SCREEN = (("Unknown-1", True),)
PLATFORM_DRIVERS = "/sys/bus/platform/drivers"


@dataclass(eq=False, slots=True)
class Framebuffer:
    """A registered framebuffer: its name in /proc/fb and its node."""

    name: str
    node: Node
    path: str


@dataclass(frozen=True, slots=True)
class Card:
    """A DRM device: its number, its directory, its nodes."""

    number: int
    path: str
    nodes: tuple[Node, ...]
    connectors: tuple[tuple[str, bool], ...]


@dataclass(eq=False, slots=True)
class Firmware:
    """The firmware's framebuffer, a platform device gone for good when a driver takes the GPU (kernel.md fact 9)."""

    name: str
    device: PciDevice
    path: str
    drm: bool
    """Whether a DRM driver has it (simpledrm, efidrm, vesadrm), on which a compositor runs."""
    framebuffer: int | None = None


class Graphics:
    """What the machine shows its picture with."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._framebuffers: dict[int, Framebuffer] = {}
        self._cards: dict[str, Card] = {}
        self._firmware: Firmware | None = None
        self._console_bound = False
        self.unseen: set[str] = set()
        """Outputs, `card0-DP-1`, whose screen the driver has not found by itself, until it is told to look."""
        machine.tree.text("/proc/fb", self._list_framebuffers)
        machine.tree.text(f"{CONSOLES}/vtcon0/name", "(S) dummy device\n")
        machine.tree.text(f"{CONSOLES}/vtcon0/bind", lambda: f"{int(not self._console_bound)}\n", lambda _: None)
        machine.tree.link("/sys/class/vtconsole/vtcon0", f"{CONSOLES}/vtcon0")

    def add_framebuffer(self, device: PciDevice, path: str, name: str, module: str | None) -> int:
        """Register a framebuffer; the console appears with the first one and binds by itself (kernel.md 2)."""
        machine = self._machine
        number = machine.lowest_free(self._framebuffers)
        path = f"{path}/graphics/fb{number}"
        node = Node(f"/dev/fb{number}", os.makedev(FB_MAJOR, number), module, device.path)
        machine.tree.text(f"{path}/name", f"{name}\n")
        machine.tree.text(f"{path}/dev", f"{FB_MAJOR}:{number}\n")
        machine.tree.link(f"{path}/device", path.rsplit("/", 2)[0])
        machine.add_node(node, path, f"/sys/class/graphics/fb{number}")
        self._framebuffers[number] = Framebuffer(name, node, path)
        machine.uevents.emit("add", path, "graphics")
        if len(self._framebuffers) == 1:
            machine.tree.text(f"{CONSOLES}/vtcon1/name", "(M) frame buffer device\n")
            machine.tree.text(f"{CONSOLES}/vtcon1/bind", lambda: f"{int(self._console_bound)}\n", self._bind_console)
            machine.tree.link("/sys/class/vtconsole/vtcon1", f"{CONSOLES}/vtcon1")
            machine.uevents.emit("add", f"{CONSOLES}/vtcon1", "vtconsole")
        self._console_bound = True
        return number

    def remove_framebuffer(self, number: int) -> None:
        """Unregister a framebuffer; the console's directory goes with the last one."""
        machine = self._machine
        framebuffer = self._framebuffers.pop(number)
        machine.remove_node(framebuffer.node, f"/sys/class/graphics/fb{number}")
        machine.tree.remove(framebuffer.path)
        machine.uevents.emit("remove", framebuffer.path, "graphics")
        if not self._framebuffers:
            self._console_bound = False
            machine.tree.remove("/sys/class/vtconsole/vtcon1")
            machine.tree.remove(f"{CONSOLES}/vtcon1")
            machine.uevents.emit("remove", f"{CONSOLES}/vtcon1", "vtconsole")

    def add_card(self, device: PciDevice, path: str, module: str | None, *, firmware: bool = False) -> None:
        """Make the DRM nodes and connectors of a GPU below `path`; those of the firmware's picture render nothing."""
        machine = self._machine
        number = machine.lowest_free(card.number for card in self._cards.values())
        nodes = []
        for name, minor in ((f"card{number}", number), (f"renderD{128 + number}", 128 + number))[: 1 if firmware else 2]:
            place = f"{path}/drm/{name}"
            machine.tree.text(f"{place}/dev", f"{DRM_MAJOR}:{minor}\n")
            machine.tree.link(f"{place}/device", path)
            node = Node(f"/dev/dri/{name}", os.makedev(DRM_MAJOR, minor), module, device.path)
            machine.add_node(node, place, f"/sys/class/drm/{name}")
            nodes.append(node)
            machine.uevents.emit("add", place, "drm")
        card = Card(number, f"{path}/drm", tuple(nodes), FIRMWARE_SCREEN if firmware else device.connectors)
        self._cards[device.path] = card
        if device.boot_vga and not firmware and machine.newer_than(7, 0):
            machine.tree.text(f"{card.path}/card{number}/boot_display", "1\n")
        for connector, connected in card.connectors:
            self._add_connector(card, connector, connected=connected)
        machine.uevents.emit("change", f"{card.path}/card{number}", "drm")

    def _add_connector(self, card: Card, connector: str, *, connected: bool) -> None:
        tree, name = self._machine.tree, f"card{card.number}-{connector}"
        path = f"{card.path}/card{card.number}/{name}"
        tree.text(f"{path}/status", lambda: self._status(name, connected=connected), lambda _: self.unseen.discard(name))
        tree.text(f"{path}/enabled", "enabled\n" if connected else "disabled\n")
        tree.text(f"{path}/dpms", "On\n" if connected else "Off\n")
        tree.link(f"{path}/device", f"{card.path}/card{card.number}")
        tree.link(f"/sys/class/drm/{name}", path)
        self._machine.uevents.emit("add", path, "drm")

    def remove_card(self, device: PciDevice) -> None:
        """Take the DRM nodes of a GPU away, whoever has them open."""
        machine = self._machine
        card = self._cards.pop(device.path, None)
        if card is None:
            return
        for connector, _ in card.connectors:
            name = f"card{card.number}-{connector}"
            machine.tree.remove(f"/sys/class/drm/{name}")
            machine.uevents.emit("remove", f"{card.path}/card{card.number}/{name}", "drm")
        for node in reversed(card.nodes):
            name = node.path.rsplit("/", 1)[-1]
            machine.remove_node(node, f"/sys/class/drm/{name}")
            machine.uevents.emit("remove", f"{card.path}/{name}", "drm")
        machine.tree.remove(card.path)

    def nodes_of(self, device: PciDevice) -> tuple[Node, ...]:
        """Return the DRM nodes of a GPU."""
        card = self._cards.get(device.path)
        return card.nodes if card is not None else ()

    def add_firmware(self, device: PciDevice, name: str = "efi-framebuffer", *, drm: bool = False) -> None:
        """Register the firmware's framebuffer; since 6.9 it is a child of its GPU (kernel.md 2)."""
        machine = self._machine
        above = device.path if machine.newer_than(6, 9) else "/sys/devices/platform"
        firmware = Firmware(name, device, f"{above}/{name}.0", drm)
        self._firmware = firmware
        machine.tree.directory(firmware.path)
        machine.tree.link(f"/sys/bus/platform/devices/{name}.0", firmware.path)
        for verb, write in (("bind", self._bind_firmware), ("unbind", self._unbind_firmware)):
            machine.tree.trigger(f"{PLATFORM_DRIVERS}/{name}/{verb}", write)
        self._bind_firmware(f"{name}.0")

    def evict_firmware(self, device: PciDevice) -> None:
        """Unregister the firmware's framebuffer of a GPU that a driver takes; only a reboot brings it back."""
        firmware = self._firmware
        if firmware is None or firmware.device is not device:
            return
        if firmware.framebuffer is not None:
            self._unbind_firmware(f"{firmware.name}.0")
        self._firmware = None
        self._machine.tree.remove(f"/sys/bus/platform/devices/{firmware.name}.0")
        self._machine.tree.remove(firmware.path)
        self._machine.uevents.emit("remove", firmware.path, "platform")

    def _bind_firmware(self, text: str) -> None:
        firmware = self._firmware_called(text)
        if firmware.framebuffer is not None:
            raise failure(errno.EBUSY, firmware.path)
        names = {"efi-framebuffer": "EFI VGA", "vesa-framebuffer": "VESA VGA"}
        self._machine.tree.link(f"{firmware.path}/driver", f"{PLATFORM_DRIVERS}/{firmware.name}")
        name = names.get(firmware.name, "simple")
        if firmware.drm:
            self.add_card(firmware.device, firmware.path, None, firmware=True)
            name = "simpledrmdrmfb"
        firmware.framebuffer = self.add_framebuffer(firmware.device, firmware.path, name, None)

    def _unbind_firmware(self, text: str) -> None:
        firmware = self._firmware_called(text)
        if firmware.framebuffer is None:
            raise failure(errno.ENODEV, firmware.path)
        self.remove_framebuffer(firmware.framebuffer)
        firmware.framebuffer = None
        self.remove_card(firmware.device)
        self._machine.tree.remove(f"{firmware.path}/driver")
        self._machine.uevents.emit("unbind", firmware.path, "platform")

    def _firmware_called(self, text: str) -> Firmware:
        if self._firmware is None or text.strip() != f"{self._firmware.name}.0":
            raise failure(errno.ENODEV, PLATFORM_DRIVERS)
        return self._firmware

    def _bind_console(self, text: str) -> None:
        """A write never fails; the console is bound or not (kernel.md 2)."""
        self._console_bound = text.strip() == "1"

    def _status(self, name: str, *, connected: bool) -> str:
        return "connected\n" if connected and name not in self.unseen else "disconnected\n"

    def _list_framebuffers(self) -> str:
        return "".join(f"{number} {one.name}\n" for number, one in sorted(self._framebuffers.items()))
