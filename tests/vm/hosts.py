"""The two test hosts: one GPU that shows the desktop, and a desktop GPU with a second one that can go."""

from __future__ import annotations

from dataclasses import dataclass

SINGLE_CARD = (
    "pcie-root-port,id=slot1,chassis=1,slot=1",
    "VGA,bus=slot1,addr=00.0,multifunction=on,romfile=",
    "ich9-intel-hda,id=sound1,bus=slot1,addr=00.1",
    "hda-output,bus=sound1.0,audiodev=silence",
    "qemu-xhci,bus=slot1,addr=00.2",
)
SECOND_CARD = (
    "pcie-root-port,id=slot2,chassis=2,slot=2",
    "virtio-gpu-pci,bus=slot2,addr=00.0,multifunction=on",
    "ich9-intel-hda,id=sound2,bus=slot2,addr=00.1",
    "hda-output,bus=sound2.0,audiodev=silence",
)
SHARED_GROUP = (
    "pcie-root-port,id=slot3,chassis=3,slot=3",
    "pcie-pci-bridge,id=legacy,bus=slot3",
    "bochs-display,bus=legacy,addr=01.0",
    "e1000,bus=legacy,addr=02.0,romfile=",
)
"""Behind a bridge to conventional PCI nothing is isolated: a display and a network card in one IOMMU group."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which devices a host has, and which GPU moves."""

    name: str
    devices: tuple[str, ...]
    functions: tuple[str, ...]
    ends_desktop: bool

    @property
    def gpu(self) -> str:
        """The GPU's address."""
        return self.functions[0]


SINGLE = Layout("single", SINGLE_CARD, ("0000:01:00.0", "0000:01:00.1", "0000:01:00.2"), ends_desktop=True)
DUAL = Layout("dual", (*SINGLE_CARD, *SECOND_CARD), ("0000:02:00.0", "0000:02:00.1"), ends_desktop=False)
SHARED = Layout("shared", (*SINGLE_CARD, *SHARED_GROUP), ("0000:04:01.0",), ends_desktop=False)
