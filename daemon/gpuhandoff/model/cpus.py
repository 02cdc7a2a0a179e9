"""CPU sets in the kernel's list format, "0-3,8"."""

from __future__ import annotations

from collections.abc import Iterable

MAXIMUM = 8191
"""The highest CPU number that a kernel can be built for (NR_CPUS)."""


def parse_cpus(text: str) -> frozenset[int]:
    """Parse the list format; empty text is the empty set. Raises ValueError."""
    return from_mask(parse_mask(text))


def parse_mask(text: str) -> int:
    """Parse the list format into a mask: however many ranges there are, it is quick. Raises ValueError."""
    mask = 0
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        if not first.isascii() or not first.isdigit() or (dash and not (last.isascii() and last.isdigit())):
            raise ValueError(f"{part[:20]!r} is not a CPU or a range of CPUs such as 0-3")
        low, high = int(first[:6]), int(last[:6] if dash else first[:6])
        if low > high or high > MAXIMUM:
            raise ValueError(f"{part[:20]!r} is not a range of CPUs from 0 to {MAXIMUM}")
        mask |= (2 << high) - (1 << low)
    return mask


def from_mask(mask: int) -> frozenset[int]:
    """Return the CPUs of a mask."""
    return frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def format_cpus(cpus: Iterable[int]) -> str:
    """Return the shortest list format."""
    parts: list[str] = []
    run: list[int] = []
    for cpu in [*sorted(cpus), None]:
        if run and cpu != run[-1] + 1:
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if cpu is not None:
            run.append(cpu)
    return ",".join(parts)
