"""Proof that a card works after it has been away: it answers, its driver shows it, its screen is seen again.

A card that is dead is not poked any further (kernel.md 4.2). Removing its functions and rescanning the bus is not tried: no
fact says that it helps, while it loses overrides and may give other numbers (kernel.md 1.1).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import Host
from gpuhandoff.steps.pci_function import DEVICES, driver_of, probe, unbind

NOBODY = b"\xff\xff\xff\xff"
"""What is read where nothing answers: no vendor has this number."""
SCREEN = 4.0
"""Seconds for a screen to be seen by a driver that has just come (peers.md 4)."""
_PANEL = "eDP-"
"""Begins the outputs that are told nothing: a laptop's own screen is never found by asking."""

log = logging.getLogger(__name__)


async def refuse_dead(host: Host, functions: Iterable[str]) -> None:
    """Raise RolledBackError when a function does not answer: a guest, or its end, has left it dead."""
    for address in functions:
        try:
            head = await host.kernel.read_head(f"{DEVICES}/{address}/config", len(NOBODY))
        except OSError as error:
            log.info("%s cannot be asked for its configuration space: %s", address, error)
            continue
        if head == NOBODY:
            raise RolledBackError(
                f"{address} does not answer any more: its configuration space reads all ones. Switch the machine off, wait "
                "half a minute, and on again; a reboot alone may not do."
            )


async def probe_again(host: Host, display: str, driver: str) -> None:
    """Unbind and probe the display function once more: its driver is bound, and shows no device."""
    log.warning("%s is with %s, which shows nothing of it: once more", display, driver)
    if driver_of(host, display) == driver:
        await unbind(host, display)
    await probe(host, display, driver)


def screens(host: Host, display: str) -> list[str]:
    """Return the outputs with a screen."""
    return [_name(path) for path in _outputs(host, display) if _status(host, path) == "connected"]


async def find_screens(host: Host, display: str) -> None:
    """Wait until a screen is seen, have the driver look for one, wait again; none is no failure: it may be switched off."""
    if await host.until(lambda: bool(screens(host, display)), timeout=SCREEN):
        return
    for path in _outputs(host, display):
        if not _name(path).startswith(_PANEL):
            try:
                await host.kernel.write(f"{path}/status", "detect")
            except OSError as error:
                log.info("%s cannot be told to look for a screen: %s", path, error)
    if not await host.until(lambda: bool(screens(host, display)), timeout=SCREEN):
        log.warning("no screen is seen on %s, where there was one before", display)


def _outputs(host: Host, display: str) -> list[str]:
    """Return the directories of the outputs."""
    found = []
    for card in host.kernel.entries(f"{DEVICES}/{display}/drm"):
        place = f"{DEVICES}/{display}/drm/{card}"
        found += [f"{place}/{name}" for name in host.kernel.entries(place) if name.startswith(f"{card}-")]
    return found


def _name(path: str) -> str:
    """Return `DP-1` of `.../card0-DP-1`."""
    return path.rpartition("/")[2].partition("-")[2]


def _status(host: Host, path: str) -> str:
    try:
        return host.kernel.read(f"{path}/status").strip()
    except OSError:
        return ""
