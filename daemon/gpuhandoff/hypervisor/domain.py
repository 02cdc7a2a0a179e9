"""A libvirt domain, as far as it concerns a GPU that is lent to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuhandoff.model.address import PciAddress

DEFAULT_PAGE = 0
"""Stands for the host's default size of huge pages."""


@dataclass(frozen=True, slots=True)
class Hostdev:
    """One PCI function of the host that the domain gets."""

    address: PciAddress
    managed: bool = False
    """Whether libvirt itself binds it to vfio-pci before the start and gives it back after the end."""
    rom_bar: bool | None = None
    """Whether its ROM is shown to the guest; None leaves that to QEMU."""
    rom_file: str = ""


@dataclass(frozen=True, slots=True)
class Domain:
    """What the XML says; sizes in bytes unless a name says otherwise."""

    name: str = ""
    hostdevs: tuple[Hostdev, ...] = ()
    memory: int = 0
    """All of it, as VFIO pins all of it, whatever a balloon does."""
    huge_page_sizes_kib: frozenset[int] = field(default_factory=frozenset)
    """Sizes of the static huge pages that back its memory (DEFAULT_PAGE: the host's default); empty: ordinary pages."""
    vcpus: int = 0
    vcpu_pins: frozenset[int] = field(default_factory=frozenset)
    """The host's CPUs that its vCPUs run on; empty: any."""
    emulator_pins: frozenset[int] = field(default_factory=frozenset)
    iothread_pins: frozenset[int] = field(default_factory=frozenset)
    firmware: str = ""
    """efi or bios; empty: the hypervisor's default."""

    @property
    def pins(self) -> frozenset[int]:
        """Every CPU of the host that something of the domain is pinned to."""
        return self.vcpu_pins | self.emulator_pins | self.iothread_pins
