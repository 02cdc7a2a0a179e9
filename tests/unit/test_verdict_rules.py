"""The tables: every row makes sense, names its source, and speaks of the cards that it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhandoff.model.verdict import Kind
from gpuhandoff.verdict.rules import CARDS, cards, kernels, version_of

HEAD = "vendor\tids\tfamily\tdriver\tverdict\treason\tsource\n"


def family(vendor: int, device: int, driver: str = "") -> tuple[str, Kind] | None:
    """Return what the first row that fits says."""
    rule = next((one for one in cards() if one.fits(vendor, device, driver)), None)
    return (rule.family, rule.kind) if rule is not None else None


@pytest.mark.parametrize(
    ("vendor", "device", "expected"),
    [
        (0x10DE, 0x1B80, ("Pascal", Kind.SAFE)),
        (0x10DE, 0x2504, ("Ampere", Kind.SAFE)),
        (0x10DE, 0x2786, ("Ada Lovelace", Kind.SAFE)),
        (0x10DE, 0x2B85, ("Blackwell GB202", Kind.ONCE_PER_BOOT)),
        (0x10DE, 0x2C05, ("Blackwell GB203", Kind.CAUTION)),
        (0x10DE, 0x2F04, ("Blackwell", Kind.CAUTION)),
        (0x10DE, 0x22E8, None),  # an audio function
        (0x1002, 0x67DF, ("Polaris 10", Kind.NEEDS_VENDOR_RESET)),
        (0x1002, 0x67D4, ("Polaris 10", Kind.ONCE_PER_BOOT)),
        (0x1002, 0x6FDF, ("Polaris 10", Kind.NEEDS_VENDOR_RESET)),
        (0x1002, 0x731F, ("Navi 10", Kind.NEEDS_VENDOR_RESET)),
        (0x1002, 0x73BF, ("Navi 21", Kind.CAUTION)),
        (0x1002, 0x73DF, ("Navi 22", Kind.SAFE)),
        (0x1002, 0x73A4, None),  # a USB function
        (0x1002, 0x73F0, ("Navi 33", Kind.CAUTION)),  # within the ids of Navi 23
        (0x1002, 0x744C, ("Navi 31", Kind.CAUTION)),
        (0x1002, 0x747E, ("Navi 32", Kind.ONCE_PER_BOOT)),
        (0x1002, 0x7550, ("Navi 48", Kind.ONCE_PER_BOOT)),
        (0x1002, 0x1638, ("AMD processor graphics", Kind.ONCE_PER_BOOT)),
        (0x1002, 0x740F, ("Instinct MI300X MI355X", Kind.BROKEN)),
        (0x8086, 0x56A0, ("Intel Arc", Kind.UNKNOWN)),
        (0x1234, 0x1111, ("QEMU VGA", Kind.SAFE)),
        (0x1B36, 0x0100, ("QEMU QXL", Kind.BROKEN)),
    ],
)
def test_cards_that_are_known(vendor: int, device: int, expected: tuple[str, Kind] | None) -> None:
    assert family(vendor, device) == expected


def test_the_driver_may_decide() -> None:
    assert family(0x10DE, 0x2B85, "nvidia-proprietary") == ("Blackwell GB202", Kind.BROKEN)
    assert family(0x10DE, 0x2B85, "nvidia-open") == ("Blackwell GB202", Kind.ONCE_PER_BOOT)


def test_every_row_has_a_source_and_speaks_in_sentences() -> None:
    said = [(rule.source, rule.reason) for rule in cards()] + [(rule.source, rule.reason) for rule in kernels()]
    for source, reason in said:
        assert source
        assert reason[0].isupper()
        assert reason.endswith(".")


def test_no_two_rows_claim_the_same_card() -> None:
    seen: dict[tuple[int, int, str], str] = {}
    for rule in cards():
        for device in (one for ids in rule.ids for one in ids):
            if rule.fits(rule.vendor, device, rule.driver):
                assert seen.setdefault((rule.vendor, device, rule.driver), rule.family) == rule.family


@pytest.mark.parametrize(
    ("version", "driver", "found"),
    [
        ("6.1.133", "", []),
        ("6.1.134", "", [Kind.ONCE_PER_BOOT]),
        ("6.1.135", "", []),
        ("6.12.22", "amdgpu", []),
        ("6.12.24+deb13-amd64", "", [Kind.ONCE_PER_BOOT]),
        ("6.12.25", "", []),
        ("6.14.1", "", []),
        ("6.14.2", "", [Kind.ONCE_PER_BOOT]),
        ("6.14.11", "", [Kind.ONCE_PER_BOOT]),
        ("6.15.0", "", []),
        ("6.12.66", "amdgpu", []),
        ("6.12.67", "amdgpu", [Kind.BROKEN]),
        ("6.12.76", "amdgpu", [Kind.BROKEN]),
        ("6.12.76", "nvidia-open", []),
        ("6.12.77", "amdgpu", []),
        ("7.2.2", "amdgpu", [Kind.CAUTION]),
    ],
)
def test_kernels_that_are_known(version: str, driver: str, found: list[Kind]) -> None:
    assert [rule.kind for rule in kernels() if rule.fits(version_of(version), driver)] == found


@pytest.mark.parametrize(
    "row",
    [
        "10de\t2b80\tX\t\tsafe\tWhy.\t\n",  # no source
        "10de\t2b80\tX\t\tsafe\t\tsomebody\n",  # no reason
        "10de\t2b8\tX\t\tsafe\tWhy.\tsomebody\n",  # no id
        "10de\t2b80\tX\t\tgood\tWhy.\tsomebody\n",  # no verdict
        "10de\t2b80\tX\tsafe\tWhy.\tsomebody\n",  # a column is missing
    ],
)
def test_a_row_that_makes_no_sense_is_not_taken(tmp_path: Path, row: str) -> None:
    path = tmp_path / "cards.tsv"
    path.write_text(HEAD + row)
    with pytest.raises(ValueError):  # noqa: PT011  (the words differ)
        cards(path)


def test_the_tables_are_where_the_package_is() -> None:
    assert CARDS.is_file()
