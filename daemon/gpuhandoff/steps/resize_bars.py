"""Resizable BAR: the card's memory windows as the guest wants them, set while no driver has it and set back before one has.

The file that sets a window tells which sizes it can have, not which it has: that follows from `resource` (kernel.md 5).
After a change that failed a window may have no place at all, and a driver must never get such a card: it hangs in it,
unkillable.
"""

from __future__ import annotations

import logging

from gpuhandoff.errors import RolledBackError, UnsupportedError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.steps.pci_function import DEVICES, driver_of, identity_of, refuse_gone

_MEBIBYTE = 20

log = logging.getLogger(__name__)


class ResizeBars:
    """Sets the size of windows, by number, of one function."""

    name = "resize-bars"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember the sizes that the windows have."""
        address = str(arguments["address"])
        sizes = {str(one["number"]): size_of(host, address, one["number"]) for one in arguments["bars"]}
        return {"sizes": sizes, "identity": identity_of(host, address)}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Set each, and see that it has the size, and a place."""
        address = str(arguments["address"])
        if (driver := driver_of(host, address)) is not None:
            raise RolledBackError(f"The memory windows of {address} cannot be set while {driver} has it.")
        for one in arguments["bars"]:
            number, wanted = int(one["number"]), int(one["bytes"])
            if saved["sizes"][str(number)] != wanted:
                try:
                    await _resize(host, address, number, wanted)
                except FileNotFoundError as error:  # a card that slept could not be asked beforehand
                    raise UnsupportedError(
                        f"Window {number} of {address} cannot be resized. Resizable BAR may have to be switched on in the "
                        "firmware."
                    ) from error
                except PermissionError as error:
                    raise UnsupportedError(
                        f"The kernel does not let gpuhandoffd resize window {number} of {address}. Set `bars` to `leave`, "
                        "and the card is handed off as it is."
                    ) from error
                if (found := size_of(host, address, number)) != wanted:
                    raise UnsupportedError(
                        f"Window {number} of {address} was to have {wanted >> _MEBIBYTE} MiB and has "
                        f"{found >> _MEBIBYTE} MiB: the firmware has left no room for it. Look for `Above 4G decoding` in "
                        "its setup."
                    )

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Set each back; one that keeps another size is no failure, one without a place is: no driver may get that card."""
        address = str(arguments["address"])
        refuse_gone(host, address, str(saved.get("identity", "")))
        for number, wanted in sorted(saved["sizes"].items()):
            if wanted and size_of(host, address, int(number)) != wanted:
                try:
                    await _resize(host, address, int(number), wanted)
                except OSError as error:
                    log.warning("window %s of %s keeps another size than it had: %s", number, address, error)
                if not size_of(host, address, int(number)):
                    raise RolledBackError(
                        f"Window {number} of {address} has no place in memory any more, and with that its driver would "
                        "hang. Reboot the machine."
                    )

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether every window has the size that was asked for."""
        address = str(arguments["address"])
        return all(size_of(host, address, one["number"]) == one["bytes"] for one in arguments["bars"])


def size_of(host: Host, address: str, number: int) -> int:
    """Return the bytes of a window, 0 for one that is not there or has no place."""
    try:
        line = host.kernel.read(f"{DEVICES}/{address}/resource").splitlines()[number]
        start, end = (int(word, 16) for word in line.split()[:2])
    except (OSError, ValueError, IndexError):
        return 0
    return end - start + 1 if start else 0


async def _resize(host: Host, address: str, number: int, size: int) -> None:
    bit = size.bit_length() - 1 - _MEBIBYTE
    await host.kernel.write(f"{DEVICES}/{address}/resource{number}_resize", str(bit))
