"""Memory numbers and switches of the kernel."""

from __future__ import annotations

import re

from gpuhandoff.host import Host

MEMINFO = "/proc/meminfo"
COMPACT = "/proc/sys/vm/compact_memory"
DROP_CACHES = "/proc/sys/vm/drop_caches"
THP = "/sys/kernel/mm/transparent_hugepage"
HUGEPAGES = "/sys/kernel/mm/hugepages"

RESERVE = 512 << 20
"""Bytes that stay with the host whatever is asked for: without them it cannot even undo what was done. Seen on the real
kernel, where static pages took all but 200 MiB and the daemon itself no longer ran."""


def available(host: Host) -> int:
    """Return MemAvailable in bytes."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", host.kernel.read(MEMINFO), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def selected(text: str) -> str:
    """Return the chosen word of `always [madvise] never`."""
    found = re.search(r"\[(\S+)\]", text)
    return found[1] if found else text.strip()


def pool(size_kib: int) -> str:
    """Return the directory of a size of static huge pages."""
    return f"{HUGEPAGES}/hugepages-{size_kib}kB"


def pages(host: Host, size_kib: int) -> int:
    """Return how many static huge pages of this size there are."""
    return int(host.kernel.read(f"{pool(size_kib)}/nr_hugepages"))


def surplus(host: Host, size_kib: int) -> int:
    """Return how many of them are only there until their user lets go."""
    return int(host.kernel.read(f"{pool(size_kib)}/surplus_hugepages"))
