"""What else is installed: the distribution, and others who bind GPUs to vfio-pci."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """Distributions that are told the same commands."""

    DEBIAN = "debian"
    POP = "pop"
    """As Debian, but for the boot loader: systemd-boot with kernelstub."""
    FEDORA = "fedora"
    OSTREE = "ostree"
    """Fedora as an image that is never written to: Silverblue, Kinoite, Bazzite."""
    ARCH = "arch"
    SUSE = "suse"
    OTHER = ""


@dataclass(frozen=True, slots=True)
class Distribution:
    """From os-release."""

    family: Family = Family.OTHER
    name: str = ""


class Means(StrEnum):
    """How somebody else binds devices to vfio-pci, or keeps drivers from them."""

    MODPROBE = "modprobe"
    """Device ids for vfio-pci in modprobe.d."""
    COMMAND_LINE = "command line"
    """Device ids on the kernel command line."""
    DRIVERCTL = "driverctl"
    SUPERGFXCTL = "supergfxctl"
    INITRAMFS = "initramfs"
    """vfio-pci is loaded in the initial ram disk, before the drivers of the host."""
    BLACKLIST = "blacklist"
    """A driver of the host is not loaded by itself."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A setting of somebody else that concerns the GPUs. `subject`: the ids, the address or the module it names."""

    means: Means
    path: str
    line: str
    subject: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All of it."""

    distribution: Distribution = Distribution()
    rivals: tuple[Rival, ...] = ()
