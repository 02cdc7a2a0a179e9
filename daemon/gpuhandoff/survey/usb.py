"""What is plugged into a card's own USB port: with the port it is cut off from the host (kernel.md 1.4).

Names come from udev's database, as to read them from the device takes its lock (usb_string_attr), which hangs when it does.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

from gpuhandoff.host import Host
from gpuhandoff.model.hardware import FunctionKind, UsbDevice
from gpuhandoff.model.world import Function
from gpuhandoff.survey.disks import Disks

_ROOT_HUB = re.compile(r"usb\d+")
_DEVICE = re.compile(r"\d+-\d+(?:\.\d+)*")
"""By the ports on the way to it; what has a colon is an interface of it."""
_HUB = "09"
"""bDeviceClass."""
_UDEV = "/run/udev/data"
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def attached(host: Host, functions: Iterable[Function]) -> tuple[UsbDevice, ...]:
    """Return what hangs below these functions, hubs left out, with what the host uses of it."""
    hubs = [
        f"{one.address.sysfs}/{name}"
        for one in functions
        if one.kind is FunctionKind.USB
        for name in host.kernel.entries(one.address.sysfs)
        if _ROOT_HUB.fullmatch(name)
    ]
    found = [path for hub in hubs for path in _below(host, hub)]
    if not found:
        return ()
    places = [host.kernel.resolve(path) for path in found]
    disks = Disks(host, places)
    return tuple(UsbDevice(_name(host, place), disks.uses(place)) for place in places)


def _below(host: Host, directory: str) -> Iterator[str]:
    """Yield the devices below a hub, each before what is plugged into it."""
    for name in host.kernel.entries(directory):
        if _DEVICE.fullmatch(name):
            path = f"{directory}/{name}"
            if _read(host, f"{path}/bDeviceClass") not in {_HUB, ""}:  # empty: gone meanwhile
                yield path
            yield from _below(host, path)


def _name(host: Host, path: str) -> str:
    """Return what a person calls it, `SanDisk Extreme SSD`, else its ids."""
    number = _read(host, f"{path}/dev")
    lines = (line.partition("=") for line in _read(host, f"{_UDEV}/c{number}").splitlines())
    says = {key: value for key, _, value in lines}
    maker, model = _text(says, "VENDOR"), _text(says, "MODEL")
    if not model:
        ids = ":".join(_read(host, f"{path}/{name}") for name in ("idVendor", "idProduct"))
        return f"{maker} USB device {ids}".strip()
    return model if model.lower().startswith(maker.lower()) else f"{maker} {model}"


def _text(says: dict[str, str], what: str) -> str:
    """Return what the device says, where that is more than its id, or else hwdb; without orders to a terminal."""
    own = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), says.get(f"E:ID_{what}_ENC", "")).strip()
    text = own if own != says.get(f"E:ID_{what}_ID", "") else says.get(f"E:ID_{what}_FROM_DATABASE", "")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _read(host: Host, path: str) -> str:
    with contextlib.suppress(OSError):
        return host.kernel.read(path).strip()
    return ""
