"""The tables of what is known: which cards come back from a guest, and which kernels lose them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gpuhandoff.model.verdict import Kind

CARDS = Path(__file__).with_name("cards.tsv")
KERNELS = Path(__file__).with_name("kernels.tsv")
_RANGE = re.compile(r"(!?)([0-9a-f]{4})(?:-([0-9a-f]{4}))?")

AMD_PROCESSOR = "AMD processor graphics"
"""The family of graphics that are a part of the processor."""

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CardRule:
    """A row about device ids of one vendor. `driver` is empty where it does not matter which one the card is with."""

    vendor: int
    ids: tuple[range, ...]
    excluded: frozenset[int]
    family: str
    driver: str
    kind: Kind
    reason: str
    source: str

    def fits(self, vendor: int, device: int, driver: str) -> bool:
        """Tell whether the row speaks of this card."""
        return (
            vendor == self.vendor
            and device not in self.excluded
            and any(device in ids for ids in self.ids)
            and self.driver in {"", driver}
        )


@dataclass(frozen=True, slots=True)
class KernelRule:
    """A row about upstream kernel versions, both ends included. `when` is empty, `no-own-reset` or `leaves`."""

    first: Version
    last: Version
    driver: str
    when: str
    kind: Kind
    reason: str
    source: str

    def fits(self, version: Version, driver: str) -> bool:
        """Tell whether the row speaks of this kernel and driver."""
        return self.first <= version <= self.last and self.driver in {"", driver}


def version_of(text: str) -> Version:
    """Return the numbers that a version begins with: `6.12.107+deb13-amd64` is (6, 12, 107)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


@cache
def cards(path: Path = CARDS) -> tuple[CardRule, ...]:
    """Return the rows about cards, in the order in which they count; raises ValueError for one that makes no sense."""
    return tuple(_card(row) for row in _rows(path, ("vendor", "ids", "family", "driver", "verdict", "reason", "source")))


def family_of(vendor: int, device: int) -> str:
    """Return the family of a card, empty for one that is in no table."""
    return next((rule.family for rule in cards() if rule.fits(vendor, device, rule.driver)), "")


@cache
def kernels(path: Path = KERNELS) -> tuple[KernelRule, ...]:
    """Return the rows about kernels; raises ValueError for one that makes no sense."""
    return tuple(_kernel(row) for row in _rows(path, ("first", "last", "driver", "when", "verdict", "reason", "source")))


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    if tuple(lines[0].split("\t")) != columns:
        raise ValueError(f"{path}: the columns are {', '.join(columns)}")
    for line in lines[1:]:
        row = dict(zip(columns, line.split("\t"), strict=True))
        if not row["source"] or not row["reason"]:
            raise ValueError(f"{path}: a row needs a reason and a source: {line}")
        yield row


def _card(row: dict[str, str]) -> CardRule:
    ids: list[range] = []
    excluded: set[int] = set()
    for word in row["ids"].split():
        found = _RANGE.fullmatch(word)
        if found is None:
            raise ValueError(f"{word}: device ids are four hexadecimal digits")
        first = int(found[2], 16)
        if found[1]:
            excluded.add(first)
        else:
            ids.append(range(first, int(found[3] or found[2], 16) + 1))
    return CardRule(
        int(row["vendor"], 16),
        tuple(ids),
        frozenset(excluded),
        row["family"],
        row["driver"],
        Kind(row["verdict"]),
        row["reason"],
        row["source"],
    )


def _kernel(row: dict[str, str]) -> KernelRule:
    if row["when"] not in {"", "no-own-reset", "leaves"}:
        raise ValueError(f"{row['when']}: no such condition")
    return KernelRule(
        version_of(row["first"]),
        version_of(row["last"]),
        row["driver"],
        row["when"],
        Kind(row["verdict"]),
        row["reason"],
        row["source"],
    )
