"""Cards and other devices that the scenarios are built from."""

from __future__ import annotations

from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.pci import AMD, INTEL, NVIDIA, VGA, PciDevice

SAMSUNG = 0x144D
AUDIO, USB, UCSI, BRIDGE, NETWORK, DISK = 0x040300, 0x0C0330, 0x0C8000, 0x060400, 0x020000, 0x010802

SCREEN = (("HDMI-A-1", True), ("DP-1", False))
NO_SCREEN = (("HDMI-A-1", False), ("DP-1", False))

_SIZES = tuple(1 << bit for bit in range(8, 15))
"""256 MiB to 16 GiB."""
_GEFORCE = ((0, 16, ()), (1, 16384, _SIZES), (3, 32, ()))
_RADEON = ((0, 16384, _SIZES), (2, 256, (2, 4, 8, 16, 32, 64, 128, 256)), (5, 1, ()))

PCI_IDS = """\
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t73a4  Navi 21 USB
\t73a6  Navi 21 USB
\t73bf  Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]
\tab28  Navi 21/23 HDMI/DP Audio Controller
10de  NVIDIA Corporation
\t228e  GA106 High Definition Audio Controller
\t22bc  AD104 High Definition Audio Controller
\t22e8  GB202 High Definition Audio Controller
\t2504  GA106 [GeForce RTX 3060 Lite Hash Rate]
\t2786  AD104 [GeForce RTX 4070]
\t2b85  GB202 [GeForce RTX 5090]
144d  Samsung Electronics Co Ltd
\ta80a  NVMe SSD Controller PM9A1/PM9A3/980PRO
8086  Intel Corporation
\t125c  Ethernet Controller I226-V
\t460d  12th Gen Core Processor PCI Express x16 Controller #1
\t4692  12th Gen Core Processor Host Bridge
\t4680  AlderLake-S GT1 [UHD Graphics 770]
\t7ad0  Alder Lake-S HD Audio Controller
\t7ab8  Alder Lake-S PCH PCI Express Root Port #1
"""
"""What /usr/share/misc/pci.ids says of them."""


def port(number: int, group: int) -> PciDevice:
    """Return the root port at 00:0N.0."""
    return PciDevice(PciAddress(0, 0, number, 0), INTEL, 0x460D, BRIDGE, group, name="PCIe root port")


def card(
    above: PciDevice,
    bus: int,
    group: int,
    identity: tuple[int, int],
    name: str,
    siblings: tuple[tuple[int, int], ...],
    *,
    boot_vga: bool,
    connectors: tuple[tuple[str, bool], ...] = SCREEN,
    reset_method: str = "bus",
) -> tuple[PciDevice, ...]:
    """Return a graphics card at BUS:00: its display function, then siblings of device id and class."""
    vendor, device = identity
    display = PciDevice(
        PciAddress(0, bus, 0, 0),
        vendor,
        device,
        VGA,
        group,
        parent=above,
        name=name,
        boot_vga=boot_vga,
        connectors=connectors,
        reset_method=reset_method,
    )
    display.bars = _RADEON if vendor == AMD else _GEFORCE
    others = tuple(
        PciDevice(PciAddress(0, bus, 0, place), vendor, sibling, pci_class, group, parent=above, name=f"{name}.{place}")
        for place, (sibling, pci_class) in enumerate(siblings, 1)
    )
    return (display, *others)


def rtx_4070(above: PciDevice, bus: int, group: int, *, boot_vga: bool, screen: bool = True) -> tuple[PciDevice, ...]:
    """Return a GeForce RTX 4070 with its audio function."""
    connectors = SCREEN if screen else NO_SCREEN
    return card(
        above,
        bus,
        group,
        (NVIDIA, 0x2786),
        "NVIDIA GeForce RTX 4070",
        ((0x22BC, AUDIO),),
        boot_vga=boot_vga,
        connectors=connectors,
    )


def rtx_3060(above: PciDevice, bus: int, group: int, *, boot_vga: bool) -> tuple[PciDevice, ...]:
    """Return a GeForce RTX 3060."""
    connectors = SCREEN if boot_vga else NO_SCREEN
    return card(
        above,
        bus,
        group,
        (NVIDIA, 0x2504),
        "NVIDIA GeForce RTX 3060",
        ((0x228E, AUDIO),),
        boot_vga=boot_vga,
        connectors=connectors,
    )


def rtx_5090(above: PciDevice, bus: int, group: int) -> tuple[PciDevice, ...]:
    """Return a GeForce RTX 5090, whose reset is in doubt (kernel.md 4.3)."""
    return card(
        above,
        bus,
        group,
        (NVIDIA, 0x2B85),
        "NVIDIA GeForce RTX 5090",
        ((0x22E8, AUDIO),),
        boot_vga=True,
        reset_method="flr bus",
    )


def rx_6800(above: PciDevice, bus: int, group: int) -> tuple[PciDevice, ...]:
    """Return a Radeon RX 6800 with audio, USB and UCSI functions."""
    siblings = ((0xAB28, AUDIO), (0x73A6, USB), (0x73A4, UCSI))
    return card(above, bus, group, (AMD, 0x73BF), "AMD Radeon RX 6800", siblings, boot_vga=True)


def intel_graphics(*, boot_vga: bool = True) -> PciDevice:
    """Return the graphics in an Intel processor."""
    return PciDevice(
        PciAddress(0, 0, 2, 0), INTEL, 0x4680, VGA, 0, name="UHD Graphics 770", boot_vga=boot_vga, connectors=SCREEN
    )


def virtual_functions(physical: PciDevice, count: int) -> tuple[PciDevice, ...]:
    """Return the virtual functions (SR-IOV) of a card: in its slot, each in an IOMMU group of its own, with no outputs."""
    address, group = physical.address, 100 * (physical.group + 1)
    return tuple(
        PciDevice(
            PciAddress(address.domain, address.bus, address.device, address.function + number),
            physical.vendor,
            physical.device,
            physical.pci_class,
            group + number,
            parent=physical.parent,
            physical=physical,
        )
        for number in range(1, count + 1)
    )


def intel_audio() -> PciDevice:
    """Return the mainboard's audio, which also carries the sound of Intel's own graphics."""
    return PciDevice(PciAddress(0, 0, 0x1F, 3), INTEL, 0x7AD0, AUDIO, 12, name="Alder Lake-S HD Audio")


def disk() -> PciDevice:
    """Return the NVMe disk."""
    return PciDevice(PciAddress(0, 3, 0, 0), SAMSUNG, 0xA80A, DISK, 17, parent=port(6, 16), name="980 PRO")


def network(bus: int, group: int, above: PciDevice) -> PciDevice:
    """Return a network card."""
    return PciDevice(PciAddress(0, bus, 0, 0), INTEL, 0x125C, NETWORK, group, parent=above, name="I226-V")
