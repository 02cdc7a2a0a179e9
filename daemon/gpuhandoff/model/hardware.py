"""What the survey reads of a card besides who drives it: outputs, power, memory windows, what the firmware demands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FunctionKind(StrEnum):
    """What a PCI function is for, as far as it matters here."""

    DISPLAY = "display"
    AUDIO = "audio"
    USB = "usb"
    UCSI = "ucsi"
    """The controller of a USB-C connector."""
    I2C = "i2c"
    BRIDGE = "bridge"
    OTHER = "other"


class Firmware(StrEnum):
    """What the firmware says of the IOMMU, whatever the kernel makes of it."""

    INTEL = "DMAR"
    AMD = "IVRS"
    NONE = ""
    """It describes none: switched off there, or not built in."""


@dataclass(frozen=True, slots=True)
class Connector:
    """An output of the card as its driver saw it last."""

    name: str
    """`HDMI-A-1`."""
    connected: bool
    enabled: bool = False


class Usage(StrEnum):
    """How the host uses a block device that must not go away meanwhile."""

    MOUNTED = "mounted"
    SWAP = "swap"
    PART = "part"
    """Of another device, as LVM, dm-crypt and md make them, or of a file system of several."""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What the host uses of a disk."""

    disk: str
    """`sdb1`."""
    usage: Usage
    where: str
    """The mount point, the swap space, or what it is a part of."""


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """What is plugged into the card's own USB port, or into a hub there."""

    name: str
    """`SanDisk Extreme SSD`."""
    uses: tuple[DiskUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Power:
    """Runtime power management of one function, from what the kernel remembers: reading it wakes nothing."""

    status: str = ""
    """active, suspended, unsupported, ...; empty where the kernel does not say."""
    control: str = ""
    """on keeps it awake, auto lets it sleep."""
    state: str = ""
    """D0, D3hot, D3cold, unknown, ..."""
    d3cold_allowed: bool = True

    @property
    def asleep(self) -> bool:
        """Whether looking into its registers would wake it, or wait until it is awake."""
        return self.status in {"suspended", "suspending", "resuming"} or self.state in {"D3hot", "D3cold"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A memory window of the display function. Sizes are bytes."""

    number: int
    size: int
    possible: tuple[int, ...] = ()
    """The sizes to which it can be set; none where it cannot, or the card slept when it was looked at."""

    @property
    def resizable(self) -> bool:
        """Whether there is a choice."""
        return len(self.possible) > 1


@dataclass(frozen=True, slots=True)
class ReservedRegion:
    """A range of addresses that the firmware wants for the devices of an IOMMU group."""

    start: int
    end: int
    kind: str
    """`direct` shuts VFIO out (kernel.md 3), `direct-relaxable`, `msi` and `reserved` do not."""
