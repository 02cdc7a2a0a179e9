"""One PCI function and its driver: override, unbind, probe, each verified by the link (kernel.md facts 3 and 4)."""

from __future__ import annotations

import contextlib
import errno

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import Host
from gpuhandoff.model.world import VFIO_DRIVER
from gpuhandoff.steps.step import GoneError

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
SETTLE = 10.0
"""Seconds for a link to show what a write that has returned did."""

_UNSET = {"", "(null)"}


def driver_of(host: Host, address: str) -> str | None:
    """Return the bound driver's name."""
    return host.kernel.link(f"{DEVICES}/{address}/driver")


def module_of(host: Host, address: str) -> str | None:
    """Return the module behind the bound driver; None for a built-in one."""
    return host.kernel.link(f"{DEVICES}/{address}/driver/module")


def iommu_group_of(host: Host, address: str) -> str | None:
    """Return the number of the IOMMU group."""
    return host.kernel.link(f"{DEVICES}/{address}/iommu_group")


async def read_override(host: Host, address: str) -> str:
    """Return driver_override, empty when unset: the kernel shows `(null)` then (kernel.md fact 2)."""
    text = (await host.kernel.read_locked(f"{DEVICES}/{address}/driver_override")).strip()
    return "" if text in _UNSET else text


async def write_override(host: Host, address: str, driver: str) -> None:
    """Set driver_override; an empty name clears it, which takes a newline: an empty write does nothing (fact 1)."""
    await host.kernel.write(f"{DEVICES}/{address}/driver_override", f"{driver}\n")
    found = await read_override(host, address)
    if found != driver:
        raise RolledBackError(
            f"driver_override of {address} reads {found or 'unset'} after {driver or 'clearing it'} was written."
        )


async def unbind(host: Host, address: str) -> None:
    """Unbind whatever is bound; nothing being bound is no error."""
    driver = driver_of(host, address)
    if driver is None:
        return
    answer = "says that it is done"
    try:
        await host.kernel.write(f"{DRIVERS}/{driver}/unbind", address)
    except OSError as error:
        if error.errno not in {errno.ENODEV, errno.ENOENT}:
            raise
        answer = f"says: {error.strerror}"
    if not await host.until(lambda: driver_of(host, address) != driver, timeout=SETTLE):
        raise RolledBackError(f"{address} stays bound to {driver}: told to unbind it, the kernel {answer}.")


def identity_of(host: Host, address: str) -> str:
    """Return which kind of device it is, "0x10de:0x2786"; empty where the kernel does not say."""
    try:
        return ":".join(host.kernel.read(f"{DEVICES}/{address}/{name}").strip() for name in ("vendor", "device"))
    except OSError:
        return ""


def refuse_gone(host: Host, address: str, was: str) -> None:
    """Raise GoneError for a function that is not there any more, RolledBackError where it is not what it `was`."""
    if not host.kernel.exists(f"{DEVICES}/{address}"):
        raise GoneError(f"{address} has left the PCI bus. Put it back, or write 1 to /sys/bus/pci/rescan.")
    now = identity_of(host, address)
    if was and now and now != was:
        raise RolledBackError(f"{address} is another device ({now}) than the one that was handed off ({was}).")


async def probe(host: Host, address: str, wanted: str) -> None:
    """Have the kernel look for a driver and verify that it is the wanted one."""
    if driver_of(host, address) == wanted:
        return
    with contextlib.suppress(OSError):
        await host.kernel.write("/sys/bus/pci/drivers_probe", address)
    if driver_of(host, address) is None:
        await _bind(host, address, wanted)
    if not await host.until(lambda: driver_of(host, address) is not None, timeout=SETTLE):
        raise RolledBackError(
            f"{address} is still without a driver {SETTLE:g} s after the kernel was told to bind {wanted}."
        )
    found = driver_of(host, address)
    if found != wanted:
        raise RolledBackError(f"{address} went to the driver {found} instead of {wanted}.")


async def _bind(host: Host, address: str, wanted: str) -> None:
    """Ask for the driver by name: unlike drivers_probe, this tells why not."""
    try:
        await host.kernel.write(f"{DRIVERS}/{wanted}/bind", address)
    except FileNotFoundError as error:
        raise RolledBackError(f"{address} cannot be bound to {wanted}: that driver is not loaded.") from error
    except OSError as error:
        put_off = error.errno == errno.EAGAIN  # EPROBE_DEFER: bound by itself once what it needs is there
        if not put_off and driver_of(host, address) is None:
            raise RolledBackError(
                f"The driver {wanted} does not take {address}: {error.strerror}. `journalctl -k` may tell more."
            ) from error


def on_vfio(host: Host, address: str) -> bool:
    """Tell whether vfio-pci is bound."""
    return driver_of(host, address) == VFIO_DRIVER
