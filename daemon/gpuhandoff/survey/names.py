"""What a device is called: pci.ids, read once for the devices that are asked for."""

from __future__ import annotations

import re

from gpuhandoff.host import Kernel

FILES = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
_VENDOR = re.compile(r"\n[^\s#]")
"""Where the next vendor's part begins; a device is indented."""
_SHORT = {"10de": "NVIDIA", "1002": "AMD", "8086": "Intel", "1234": "QEMU", "1af4": "virtio"}


class DeviceNames:
    """Names by vendor and device id; ids where no file knows better."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], str] = {}

    def name(self, kernel: Kernel, vendor: int, device: int) -> str:
        """Return `NVIDIA AD104 [GeForce RTX 4070]`, or `NVIDIA 10de:2786`."""
        key = (vendor, device)
        if key not in self._known:
            self._known[key] = _look_up(kernel, f"{vendor:04x}", f"{device:04x}")
        return self._known[key]


def _look_up(kernel: Kernel, vendor: str, device: str) -> str:
    prefix = _SHORT.get(vendor, "")
    for path in FILES:
        try:
            text = kernel.read(path)
        except OSError:
            continue
        begin = 0 if text.startswith(f"{vendor}  ") else text.find(f"\n{vendor}  ") + 1
        if begin == 0 and not text.startswith(f"{vendor}  "):
            continue
        following = _VENDOR.search(text, begin)
        place = text.find(f"\n\t{device}  ", begin, following.start() if following else len(text)) + 1
        if place:
            return f"{prefix or _after(text, begin)} {_after(text, place)}"
    return f"{prefix} {vendor}:{device}".strip()


def _after(text: str, place: int) -> str:
    """Return what the line at a place says after its number. The file has 40,000 lines: it is never split into them."""
    end = text.find("\n", place)
    return text[place : end if end >= 0 else None].partition("  ")[2]
