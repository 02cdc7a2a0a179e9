"""Text consoles let go of the GPU's framebuffer."""

from __future__ import annotations

import contextlib
import errno
import logging

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json

CONSOLES = "/sys/class/vtconsole"
FRAMEBUFFER = "frame buffer"
_GONE = {errno.ENODEV, errno.ENOENT}

log = logging.getLogger(__name__)


class UnbindConsoles:
    """By the console's kind, not by its number; a console that is gone with its framebuffer is done (kernel.md 2)."""

    name = "unbind-consoles"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember which framebuffer consoles are bound."""
        return {"bound": [name for name in arguments["consoles"] if _bound(host, name)]}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Unbind them. The write always reports success: read back."""
        for name in saved["bound"]:
            if _bound(host, name):
                await _write(host, name, "0")
                if _bound(host, name):
                    raise RolledBackError(
                        f"The text console {name} stays on the GPU's framebuffer, although the kernel was told to detach it."
                    )

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Bind again those that have come back unbound; the kernel mostly does it when a framebuffer registers.

        With deferred takeover it may wait for the first output (kernel.md 2): no reason to keep a desktop from starting.
        """
        for name in saved["bound"]:
            if _kind(host, name) is not None and not _bound(host, name):
                await _write(host, name, "1")
                if _kind(host, name) is not None and not _bound(host, name):
                    log.warning("the text console %s is not on a framebuffer again", name)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether none is bound."""
        return not any(_bound(host, name) for name in saved["bound"])


def _kind(host: Host, name: str) -> str | None:
    with contextlib.suppress(OSError):
        kind = host.kernel.read(f"{CONSOLES}/{name}/name")
        return kind if FRAMEBUFFER in kind else None
    return None


async def _write(host: Host, name: str, text: str) -> None:
    """Write `bind`; the console may go with its framebuffer at any moment."""
    try:
        await host.kernel.write(f"{CONSOLES}/{name}/bind", text)
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _bound(host: Host, name: str) -> bool:
    with contextlib.suppress(OSError):
        return _kind(host, name) is not None and host.kernel.read(f"{CONSOLES}/{name}/bind").strip() == "1"
    return False
