"""Huge pages for the guest: transparent ones made possible, or static ones added to those that are there."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from gpuhandoff.errors import RolledBackError, UnsupportedError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.steps import memory

DEADLINE = 120.0
"""Seconds; the kernel migrates memory page by page for this."""
ATTEMPTS = 3

SWITCHES: dict[str, tuple[str, frozenset[str]]] = {
    "enabled": ("madvise", frozenset({"always", "madvise"})),
    "defrag": ("madvise", frozenset({"always", "defer+madvise", "madvise"})),
    "shmem_enabled": ("advise", frozenset({"always", "within_size", "advise", "force"})),
}
"""What is set, unless one of these is set already: QEMU asks for huge pages itself, and VFIO pins its memory at the first
touch, so they have to be had then (kernel.md 7)."""

log = logging.getLogger(__name__)


class BackGuestMemory:
    """Never takes away pages that others asked for; gives back exactly those it added."""

    name = "back-guest-memory"
    needs_gpu = False
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember the switches, or the number of pages and how many will be added."""
        if arguments["kind"] == "transparent":
            switches = {}
            for name in SWITCHES:
                with contextlib.suppress(OSError):
                    switches[name] = memory.selected(host.kernel.read(f"{memory.THP}/{name}"))
            if "enabled" not in switches:
                raise UnsupportedError("This kernel has no transparent huge pages.")
            return {"switches": switches}
        size = int(arguments["size_kib"])
        try:
            before = memory.pages(host, size)
        except OSError as error:
            raise UnsupportedError(f"This kernel has no huge pages of {size} KiB.") from error
        return {"pages": before, "added": -(-int(arguments["bytes"]) // (size << 10)), "size_kib": size}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Set the switches, or add pages and count them."""
        if "switches" in saved:
            for name, was in saved["switches"].items():
                wanted, enough = SWITCHES[name]
                if was not in enough:
                    await host.kernel.write(f"{memory.THP}/{name}", wanted)
            return
        await self._add(host, int(arguments["size_kib"]), saved)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Set back what is still as we set it; take away at most what was added, never below what was there."""
        if "switches" in saved:
            await self._restore_switches(host, saved["switches"])
            return
        size = int(arguments["size_kib"])
        now = memory.pages(host, size)
        wanted = max(saved["pages"], now - saved["added"])
        if now > wanted:
            await host.kernel.write(f"{memory.pool(size)}/nr_hugepages", str(wanted), deadline=DEADLINE)
            left, surplus = memory.pages(host, size) - wanted, memory.surplus(host, size)
            if left > surplus:
                raise RolledBackError(
                    f"The kernel keeps {left - surplus} huge pages of {size} KiB that it was told to free."
                )
            if left > 0:  # the kernel takes them when their user lets go (kernel.md 7)
                log.warning("%d huge pages of %d KiB are still in use and go when their user does", left, size)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether the switches are set or the pages are there."""
        if "switches" in saved:
            return all(
                memory.selected(host.kernel.read(f"{memory.THP}/{name}")) in SWITCHES[name][1] for name in saved["switches"]
            )
        return memory.pages(host, int(arguments["size_kib"])) >= int(saved["pages"]) + int(saved["added"])

    async def _add(self, host: Host, size: int, saved: Json) -> None:
        """Partial success is not an error to the kernel: read back, make room, try again."""
        needed, spare = saved["added"] * (size << 10), memory.available(host) - memory.RESERVE
        if needed > spare:
            raise UnsupportedError(
                f"The guest needs {saved['added']} huge pages of {size} KiB, {needed >> 20} MiB; the host can spare "
                f"{max(spare, 0) >> 20} MiB now. Close programs, or give the guest less memory."
            )
        wanted = saved["pages"] + saved["added"]
        got = saved["pages"]
        for attempt in range(ATTEMPTS):
            if attempt:
                with contextlib.suppress(FileNotFoundError):
                    await host.kernel.write(memory.COMPACT, "1", deadline=DEADLINE)
            await host.kernel.write(f"{memory.pool(size)}/nr_hugepages", str(wanted), deadline=DEADLINE)
            before, got = got, memory.pages(host, size)
            if got >= wanted:
                return
            if attempt and got <= before:
                break
        raise UnsupportedError(
            f"The guest needs {saved['added']} huge pages of {size} KiB; the kernel could make "
            f"{got - saved['pages']}. Close programs, or use hugepages=transparent, which takes what there is."
        )

    async def _restore_switches(self, host: Host, switches: dict[str, Any]) -> None:
        for name, was in switches.items():
            wanted, enough = SWITCHES[name]
            path = f"{memory.THP}/{name}"
            if was not in enough and memory.selected(host.kernel.read(path)) == wanted:
                await host.kernel.write(path, was)
