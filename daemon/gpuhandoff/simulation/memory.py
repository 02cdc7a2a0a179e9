"""Memory: what is free, huge pages, transparent huge pages, reclaim (kernel.md 7)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from gpuhandoff.simulation.tree import failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

HUGE = 2 << 20
HUGEPAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB"
GIGANTIC_PAGES = "/sys/kernel/mm/hugepages/hugepages-1048576kB"
TRANSPARENT = "/sys/kernel/mm/transparent_hugepage"

_CHOICES = {
    "enabled": (("always", "madvise", "never"), "madvise"),
    "defrag": (("always", "defer", "defer+madvise", "madvise", "never"), "madvise"),
    "shmem_enabled": (("always", "within_size", "advise", "never", "deny", "force"), "never"),
}


class Memory:
    """Bytes of RAM by use. Free memory is either whole in 2 MiB blocks or fragmented until somebody compacts it."""

    def __init__(self, machine: SimulatedMachine, total: int) -> None:
        self._machine = machine
        self.total = total
        self.cache = total // 4
        self.anonymous = total // 8
        """What processes use and could be swapped out."""
        self.fragmented = total // 8
        """Free, but not in one piece."""
        self.pages = 0
        self.pages_used = 0
        """Huge pages that a guest has mapped."""
        self.transparent = {name: default for name, (_, default) in _CHOICES.items()}
        tree = machine.tree
        tree.text("/proc/meminfo", self._meminfo)
        tree.trigger("/proc/sys/vm/drop_caches", self._drop_caches)
        tree.trigger("/proc/sys/vm/compact_memory", self._compact)
        tree.text("/proc/sys/vm/nr_hugepages", lambda: f"{self.all_pages}\n", self._resize)
        tree.text(f"{HUGEPAGES}/nr_hugepages", lambda: f"{self.all_pages}\n", self._resize)
        tree.text(f"{HUGEPAGES}/free_hugepages", lambda: f"{max(0, self.pages - self.pages_used)}\n")
        tree.text(f"{HUGEPAGES}/surplus_hugepages", lambda: f"{max(0, self.pages_used - self.pages)}\n")
        tree.text(f"{HUGEPAGES}/resv_hugepages", "0\n")
        tree.text(f"{HUGEPAGES}/nr_overcommit_hugepages", "0\n")
        tree.text(f"{GIGANTIC_PAGES}/nr_hugepages", "0\n", self._resize_gigantic)
        tree.text(f"{GIGANTIC_PAGES}/free_hugepages", "0\n")
        for name in _CHOICES:
            self._add_choice(name)

    @property
    def all_pages(self) -> int:
        """Huge pages with those that only their users keep: surplus, after a pool has shrunk below them."""
        return max(self.pages, self.pages_used)

    @property
    def free(self) -> int:
        """MemFree."""
        return self.total - self.cache - self.anonymous - self.all_pages * HUGE

    @property
    def available(self) -> int:
        """MemAvailable: free, or cache that can be dropped at once."""
        return self.free + self.cache

    async def sync(self) -> None:
        """Write dirty pages back."""
        await self._machine.waits.takes(0.1)

    async def reclaim(self, wanted: int, *, swap: bool) -> int:
        """Take memory from caches and, where allowed, from processes; returns what was got."""
        await self._machine.waits.takes(0.05)
        from_cache = min(wanted, self.cache // 2)
        self.cache -= from_cache
        from_processes = min(wanted - from_cache, self.anonymous // 2) if swap else 0
        self.anonymous -= from_processes
        self.fragmented += (from_cache + from_processes) // 2
        return from_cache + from_processes

    async def _drop_caches(self, text: str) -> None:
        if text.strip() not in {"1", "2", "3"}:
            raise failure(errno.EINVAL, "/proc/sys/vm/drop_caches")
        await self._machine.waits.takes(0.2)
        self.fragmented += self.cache // 2
        self.cache = 0

    async def _compact(self, _text: str) -> None:
        await self._machine.waits.takes(0.3)
        self.fragmented = 0

    async def _resize(self, text: str) -> None:
        """Write nr_hugepages: as many as there are whole blocks for, and no error when that is fewer (kernel.md 7)."""
        try:
            wanted = int(text)
        except ValueError:
            raise failure(errno.EINVAL, f"{HUGEPAGES}/nr_hugepages") from None
        await self._machine.waits.takes(0.1)
        room = max(0, self.free - self.fragmented) // HUGE
        self.pages = min(max(0, wanted), self.pages + room)

    def _resize_gigantic(self, _text: str) -> None:
        """1 GiB pages can rarely be had after boot: here never, which is no error either."""

    def _add_choice(self, name: str) -> None:
        choices, _ = _CHOICES[name]

        def read() -> str:
            chosen = self.transparent[name]
            return " ".join(f"[{one}]" if one == chosen else one for one in choices) + "\n"

        def write(text: str) -> None:
            if text.strip() not in choices:
                raise failure(errno.EINVAL, f"{TRANSPARENT}/{name}")
            self.transparent[name] = text.strip()

        self._machine.tree.text(f"{TRANSPARENT}/{name}", read, write)

    def _meminfo(self) -> str:
        fields = {
            "MemTotal": self.total,
            "MemFree": self.free,
            "MemAvailable": self.available,
            "Cached": self.cache,
            "AnonPages": self.anonymous,
        }
        lines = [f"{name}:{size >> 10:>15} kB\n" for name, size in fields.items()]
        lines.append(f"HugePages_Total:   {self.all_pages}\nHugePages_Free:    {max(0, self.pages - self.pages_used)}\n")
        return "".join((*lines, "Hugepagesize:       2048 kB\n"))
