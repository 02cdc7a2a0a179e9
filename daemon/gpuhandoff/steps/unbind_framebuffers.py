"""The firmware's framebuffer lets go of the GPU's memory.

With a native driver it is gone already; vfio-pci drives it off for good, until the next boot (kernel.md fact 9). Both
show as ENODEV, which is what was wanted: a card that has nothing else to show a picture with is lent only to somebody who
has accepted that (`gpuhandoff.verdict`).
"""

from __future__ import annotations

import errno

from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json

DEVICES = "/sys/bus/platform/devices"
DRIVERS = "/sys/bus/platform/drivers"
_GONE = {errno.ENODEV, errno.ENOENT}


class UnbindFramebuffers:
    """efi-framebuffer, vesa-framebuffer, simple-framebuffer."""

    name = "unbind-framebuffers"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember which of them are bound."""
        return {"bound": [one for one in arguments["framebuffers"] if _bound(host, one)]}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Unbind them."""
        for one in saved["bound"]:
            await _write(host, one, "unbind")

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Bind again those whose device still exists."""
        for one in saved["bound"]:
            if not _bound(host, one):
                await _write(host, one, "bind")

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether none is bound."""
        return not any(_bound(host, one) for one in saved["bound"])


def _bound(host: Host, one: Json) -> bool:
    return host.kernel.link(f"{DEVICES}/{one['device']}/driver") == str(one["driver"])


async def _write(host: Host, one: Json, what: str) -> None:
    try:
        await host.kernel.write(f"{DRIVERS}/{one['driver']}/{what}", str(one["device"]))
    except OSError as error:
        if error.errno not in _GONE:
            raise
