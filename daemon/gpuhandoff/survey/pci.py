"""PCI functions from sysfs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from gpuhandoff.host import Host
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.hardware import Power
from gpuhandoff.model.world import Function

DEVICES = "/sys/bus/pci/devices"
DISPLAY = 0x03
"""PCI base class."""
INTEL = 0x8086
_BRIDGES = 2
"""Between a card and its sound: a port of its switch, and the switch."""


def functions(host: Host) -> tuple[Function, ...]:
    """Return every PCI function, ascending. driver_override is left out: reading it may block (kernel.md fact 7)."""
    found = []
    for name in host.kernel.entries(DEVICES):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile
            found.append(_function(host, PciAddress.parse(name)))
    return tuple(sorted(found, key=lambda one: one.address))


def belongs(display: Function, one: Function) -> bool:
    """Tell whether a function moves with a display function: it shares its slot, and its maker or its IOMMU group.

    A card may have each of its functions in a group of its own. In the slot of an AMD processor's graphics (1002) sit also
    its USB controllers, its security processor and the mainboard's sound (1022), which are nobody's card. Virtual functions
    (SR-IOV) follow their physical one's address, often in its slot: the card is lent without them, and they without it.
    """
    if not one.address.same_slot(display.address) or one.is_bridge or one.is_virtual:
        return False
    return one.vendor == display.vendor or one.iommu_group == display.iommu_group


def audio(host: Host, display: Function, functions: Sequence[Function]) -> tuple[Function, ...]:
    """Return the sound devices that the kernel connects with Intel graphics, outside their own slot.

    That of a processor's graphics is on their bus; that of a card behind the same switch (connectivity_check in the
    kernel's hdac_i915.c).
    """
    if display.vendor != INTEL:
        return ()
    bus = _bus(host, display)
    return tuple(
        one
        for one in functions
        if one.is_audio and one.vendor == INTEL and not belongs(display, one) and _connected(bus, _bus(host, one))
    )


def _bus(host: Host, function: Function) -> tuple[str, ...]:
    """Return the buses and bridges above a function, from the host bridge down."""
    above = host.kernel.resolve(function.address.sysfs).removeprefix("/sys/devices/").split("/")
    return tuple(above[:-1])


def _connected(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Tell whether two buses are the same, or have the same one two bridges further up."""
    return one == other or (len(one) > _BRIDGES and one[:-_BRIDGES] == other[:-_BRIDGES])


def virtual_functions(host: Host, address: PciAddress) -> tuple[PciAddress, ...]:
    """Return the virtual functions (SR-IOV) that a function has, ascending."""
    names = (name for name in host.kernel.entries(address.sysfs) if name.startswith("virtfn"))
    links = (host.kernel.link(f"{address.sysfs}/{name}") for name in names)
    return tuple(sorted(PciAddress.parse(link) for link in links if link is not None))


def upstream_port(host: Host, address: PciAddress) -> PciAddress | None:
    """Return the bridge or root port right above a function, None on a root bus."""
    parent = host.kernel.resolve(address.sysfs).rpartition("/")[0].rpartition("/")[2]
    try:
        return PciAddress.parse(parent)
    except ValueError:
        return None


def with_power(host: Host, function: Function) -> Function:
    """Return a function with what the kernel remembers of its power. None of this is read from the card itself."""
    directory = function.address.sysfs
    power = Power(
        status=_text(host, f"{directory}/power/runtime_status"),
        control=_text(host, f"{directory}/power/control"),
        state=_text(host, f"{directory}/power_state"),
        d3cold_allowed=_text(host, f"{directory}/d3cold_allowed") != "0",
    )
    return replace(function, power=power)


def _function(host: Host, address: PciAddress) -> Function:
    kernel = host.kernel
    directory = address.sysfs
    group = kernel.link(f"{directory}/iommu_group")
    pci_class = _number(host, f"{directory}/class")
    display = pci_class >> 16 == DISPLAY
    return Function(
        address,
        _number(host, f"{directory}/vendor"),
        _number(host, f"{directory}/device"),
        pci_class,
        driver=kernel.link(f"{directory}/driver"),
        module=kernel.link(f"{directory}/driver/module"),
        iommu_group=int(group) if group is not None and group.isdecimal() else None,
        boot_vga=display and _number(host, f"{directory}/boot_vga", absent=0) == 1,
        subsystem_vendor=_number(host, f"{directory}/subsystem_vendor", absent=0) if display else 0,
        subsystem_device=_number(host, f"{directory}/subsystem_device", absent=0) if display else 0,
        reset_methods=tuple(_text(host, f"{directory}/reset_method").split()) if display else (),
        is_virtual=kernel.link(f"{directory}/physfn") is not None,
    )


def _text(host: Host, path: str) -> str:
    try:
        return host.kernel.read(path)
    except OSError:
        return ""


def _number(host: Host, path: str, absent: int | None = None) -> int:
    try:
        return int(host.kernel.read(path).strip(), 0)
    except OSError:
        if absent is None:
            raise
        return absent
