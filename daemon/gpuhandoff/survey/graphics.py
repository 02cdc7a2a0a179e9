"""What shows a picture: DRM nodes, connectors, framebuffers, text consoles."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gpuhandoff.host import Host
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.hardware import Connector
from gpuhandoff.model.world import Console, Framebuffer, Gpu

GRAPHICS = "/sys/class/graphics"
CONSOLES = "/sys/class/vtconsole"
PLATFORM = "/sys/devices/platform"
_FIRMWARE = re.compile(r"(?:efi|vesa|simple)-framebuffer\.\d+")
_FRAMEBUFFER = re.compile(r"fb\d+")


def nodes(host: Host, address: PciAddress) -> tuple[str, ...]:
    """Return the DRM nodes, /dev/dri/card0 and /dev/dri/renderD128."""
    names = {
        name
        for directory in _drm(host, address)
        for name in host.kernel.entries(directory)
        if re.fullmatch(r"(?:card|renderD)\d+", name)
    }
    return tuple(f"/dev/dri/{name}" for name in sorted(names))


def connectors(host: Host, address: PciAddress) -> tuple[Connector, ...]:
    """Return the outputs. Their status is the one that the driver saw last: reading it wakes nothing (kernel.md 8)."""
    found = []
    for card in _cards(host, address):
        prefix = f"{card.rpartition('/')[2]}-"
        for name in host.kernel.entries(card):
            with contextlib.suppress(OSError):
                if name.startswith(prefix):
                    status = host.kernel.read(f"{card}/{name}/status") == "connected"
                    enabled = host.kernel.read(f"{card}/{name}/enabled") == "enabled"
                    found.append(Connector(name.removeprefix(prefix), status, enabled))
    return tuple(found)


def boot_display(host: Host, address: PciAddress) -> bool:
    """Tell whether the kernel says that the firmware showed its picture with this GPU; older ones say nothing."""
    for card in _cards(host, address):
        with contextlib.suppress(OSError):
            if host.kernel.read(f"{card}/boot_display") == "1":
                return True
    return False


def framebuffers(host: Host, address: PciAddress) -> tuple[Framebuffer, ...]:
    """Return the registered framebuffers of a GPU, and firmware framebuffer devices that are bound to a driver."""
    firmware = dict(_firmware(host, address))
    above = tuple(f"{one}/" for one in (host.kernel.resolve(address.sysfs), *firmware))
    registered = [
        Framebuffer(name, "", platform=False)
        for name in host.kernel.entries(GRAPHICS)
        if _FRAMEBUFFER.fullmatch(name) and host.kernel.resolve(f"{GRAPHICS}/{name}").startswith(above)
    ]
    devices = [Framebuffer(path.rpartition("/")[2], driver, platform=True) for path, driver in firmware.items()]
    return (*registered, *devices)


def with_consoles(host: Host, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Give the text consoles to the GPU that carries them: the one with the first framebuffer.

    Where several GPUs have framebuffers the console moves to another by itself when its own goes: then none is given
    them, so that nobody detaches the console of a GPU that stays.
    """
    carriers = [gpu for gpu in gpus if gpu.framebuffers]
    if len(carriers) != 1:
        return list(gpus)
    found = tuple(_consoles(host))
    return [replace(gpu, consoles=found) if gpu is carriers[0] else gpu for gpu in gpus]


def _consoles(host: Host) -> Iterator[Console]:
    for name in host.kernel.entries(CONSOLES):
        with contextlib.suppress(OSError):
            kind = host.kernel.read(f"{CONSOLES}/{name}/name")
            if "frame buffer" in kind:
                yield Console(name, kind.strip(), host.kernel.read(f"{CONSOLES}/{name}/bind").strip() == "1")


def _cards(host: Host, address: PciAddress) -> Iterator[str]:
    """Yield the directories of the card nodes."""
    for directory in _drm(host, address):
        yield from (f"{directory}/{name}" for name in host.kernel.entries(directory) if name.startswith("card"))


def _firmware(host: Host, address: PciAddress) -> Iterator[tuple[str, str]]:
    """Yield the firmware framebuffer devices of a GPU that are bound, and to which driver.

    They sit below their GPU on kernels from 6.9 on (kernel.md 2); before, nothing says whose one is, and it is taken for
    the GPU that the firmware booted on.
    """
    parents = [host.kernel.resolve(address.sysfs)]
    with contextlib.suppress(OSError):
        if host.kernel.read(f"{address.sysfs}/boot_vga").strip() == "1":
            parents.append(PLATFORM)
    for parent in parents:
        for name in host.kernel.entries(parent):
            driver = host.kernel.link(f"{parent}/{name}/driver") if _FIRMWARE.fullmatch(name) else None
            if driver is not None:
                yield f"{parent}/{name}", driver


def _drm(host: Host, address: PciAddress) -> Iterator[str]:
    """Yield the directories with DRM devices: the function's own, that of its virtio child, that of the firmware's picture.

    simpledrm, efidrm and vesadrm show the last (kernel.md 2).
    """
    yield f"{address.sysfs}/drm"
    for name in host.kernel.entries(address.sysfs):
        if name.startswith("virtio"):
            yield f"{address.sysfs}/{name}/drm"
    yield from (f"{path}/drm" for path, _ in _firmware(host, address))
