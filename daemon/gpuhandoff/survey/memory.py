"""Memory and huge pages."""

from __future__ import annotations

import contextlib
import re

from gpuhandoff.host import Host
from gpuhandoff.model.kernel import HugepagePool

HUGEPAGES = "/sys/kernel/mm/hugepages"


def total(host: Host) -> int:
    """Return MemTotal in bytes."""
    return _meminfo(host, "MemTotal")


def available(host: Host) -> int:
    """Return MemAvailable in bytes."""
    return _meminfo(host, "MemAvailable")


def pools(host: Host) -> tuple[HugepagePool, ...]:
    """Return each size of static huge pages."""
    found = []
    for name in host.kernel.entries(HUGEPAGES):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        if size is not None:
            with contextlib.suppress(OSError, ValueError):
                directory = f"{HUGEPAGES}/{name}"
                pages = int(host.kernel.read(f"{directory}/nr_hugepages"))
                found.append(HugepagePool(int(size[1]), pages, int(host.kernel.read(f"{directory}/free_hugepages"))))
    return tuple(found)


def default_page_kib(host: Host) -> int:
    """Return the size in KiB of huge pages where none is named; of a kernel without any, what it would be on x86."""
    return _meminfo(host, "Hugepagesize") >> 10 or 2048


def _meminfo(host: Host, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", host.kernel.read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0
