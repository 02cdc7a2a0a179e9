"""Sound cards and their nodes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from gpuhandoff.simulation.pci import INTEL, PciDevice
from gpuhandoff.simulation.tree import Node

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

SOUND_MAJOR = 116
CODEC_SECONDS = 0.2
"""From `bind` to the card: codecs are probed by delayed work (kernel.md 9)."""
_BRIDGES = 2


class Sound:
    """The cards by device. That of an Intel function pins the module of the graphics it plays through (kernel.md 1.3)."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._cards: dict[str, tuple[int, tuple[Node, ...]]] = {}
        self._expected: dict[str, asyncio.TimerHandle] = {}

    def expect_card(self, device: PciDevice, module: str | None) -> None:
        """Make the card a moment later."""
        delay = CODEC_SECONDS * self._machine.waits.pace
        self._expected[device.path] = asyncio.get_running_loop().call_later(delay, self._add_card, device, module)

    @property
    def settled(self) -> bool:
        """Whether no card is still to come."""
        return not self._expected

    def _add_card(self, device: PciDevice, module: str | None) -> None:
        machine = self._machine
        del self._expected[device.path]
        number = machine.lowest_free(card for card, _ in self._cards.values())
        card = f"{device.path}/sound/card{number}"
        machine.tree.text(f"{card}/id", "HDMI\n" if device.vendor != INTEL else "PCH\n")
        machine.tree.text(f"{card}/number", f"{number}\n")
        machine.tree.link(f"{card}/device", device.path)
        machine.tree.link(f"/sys/class/sound/card{number}", card)
        machine.uevents.emit("add", card, "sound")
        nodes = []
        for place, name in enumerate((f"controlC{number}", f"hwC{number}D0", f"pcmC{number}D3p")):
            path = f"{card}/{name}"
            minor = number * 32 + place
            machine.tree.text(f"{path}/dev", f"{SOUND_MAJOR}:{minor}\n")
            machine.tree.link(f"{path}/device", card)
            node = Node(f"/dev/snd/{name}", os.makedev(SOUND_MAJOR, minor), module, device.path)
            machine.add_node(node, path, f"/sys/class/sound/{name}")
            machine.uevents.emit("add", path, "sound")
            nodes.append(node)
        self._cards[device.path] = (number, tuple(nodes))
        machine.waits.wake()

    def remove_card(self, device: PciDevice) -> tuple[Node, ...]:
        """Take a card's nodes away and return them: some may still be open."""
        machine = self._machine
        expected = self._expected.pop(device.path, None)
        if expected is not None:
            expected.cancel()
        number, nodes = self._cards.pop(device.path, (0, ()))
        for node in reversed(nodes):
            name = node.path.rsplit("/", 1)[-1]
            machine.remove_node(node, f"/sys/class/sound/{name}")
            machine.uevents.emit("remove", f"{device.path}/sound/card{number}/{name}", "sound")
        if nodes:
            machine.tree.remove(f"/sys/class/sound/card{number}")
            machine.tree.remove(f"{device.path}/sound")
            machine.uevents.emit("remove", f"{device.path}/sound/card{number}", "sound")
        return nodes

    def pins(self, module: str) -> int:
        """How many references HDA functions hold on a graphics module."""
        if module not in {"i915", "xe"}:
            return 0
        devices = self._machine.pci.devices.values()
        return sum(
            device.vendor == INTEL
            and device.driver is not None
            and device.driver.module == "snd_hda_intel"
            and any(
                one.driver is not None and one.driver.module == module and _connected(_bus(one), _bus(device))
                for one in devices
            )
            for device in devices
        )


def _bus(device: PciDevice) -> list[PciDevice]:
    """Return the bridges above a device, the nearest first; none on the root bus."""
    return [] if device.parent is None else [device.parent, *_bus(device.parent)]


def _connected(graphics: list[PciDevice], audio: list[PciDevice]) -> bool:
    """Do as the kernel's connectivity_check (hdac_i915.c): the same bus, or the same one two bridges further up."""
    far = len(graphics) >= _BRIDGES and len(audio) >= _BRIDGES
    return graphics == audio or (far and graphics[_BRIDGES:] == audio[_BRIDGES:])
