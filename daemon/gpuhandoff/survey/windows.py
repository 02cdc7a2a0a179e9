"""Memory windows of a card, and what the firmware reserves for its IOMMU group."""

from __future__ import annotations

from gpuhandoff.host import Host
from gpuhandoff.model.hardware import Bar, ReservedRegion
from gpuhandoff.model.world import Function

GROUPS = "/sys/kernel/iommu_groups"
OWN_STATUS = "/proc/self/status"
_MEBIBYTE = 20
_SYS_ADMIN = 21
"""CAP_SYS_ADMIN (linux/capability.h)."""
_BARS = 6
_MEMORY = 0x200
"""IORESOURCE_MEM."""


def bars(host: Host, display: Function) -> tuple[Bar, ...]:
    """Return the memory windows. What sizes there could be is not asked of a card that sleeps: that would wake it."""
    found = []
    for number, line in enumerate(_read(host, f"{display.address.sysfs}/resource").splitlines()[:_BARS]):
        start, end, flags = (int(word, 16) for word in line.split())
        if start and flags & _MEMORY:
            possible = () if display.power.asleep else _possible(host, f"{display.address.sysfs}/resource{number}_resize")
            found.append(Bar(number, end - start + 1, possible))
    return tuple(found)


def may_resize(host: Host) -> bool:
    """Tell whether this process has CAP_SYS_ADMIN, which kernels of 2026 ask of who resizes a window, and older ones do not.

    From which release on cannot be told from its number. Where nothing says what it has, it is taken to have it.
    """
    found = next((line for line in _read(host, OWN_STATUS).splitlines() if line.startswith("CapEff:")), "")
    return not found or bool(int(found.partition(":")[2], 16) >> _SYS_ADMIN & 1)


def reserved(host: Host, group: int) -> tuple[ReservedRegion, ...]:
    """Return the reserved regions of an IOMMU group."""
    found = []
    for line in _read(host, f"{GROUPS}/{group}/reserved_regions").splitlines():
        words = line.split()
        if len(words) == len(("start", "end", "kind")):
            found.append(ReservedRegion(int(words[0], 16), int(words[1], 16), words[2]))
    return tuple(found)


def _possible(host: Host, path: str) -> tuple[int, ...]:
    """Bit n stands for 2 to the power of n MiB (kernel.md 5)."""
    text = _read(host, path)
    bits = int(text, 16) if text else 0
    return tuple(1 << (bit + _MEBIBYTE) for bit in range(bits.bit_length()) if bits >> bit & 1)


def _read(host: Host, path: str) -> str:
    try:
        return host.kernel.read(path)
    except OSError:
        return ""
