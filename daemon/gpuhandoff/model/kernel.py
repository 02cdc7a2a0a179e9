"""What the kernel has loaded and set aside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded kernel module."""

    name: str
    references: int
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HugepagePool:
    """One size of static huge pages, machine-wide."""

    size_kib: int
    total: int
    free: int
