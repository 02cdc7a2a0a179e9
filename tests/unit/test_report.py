"""A support report: which lines of logs it has, and values as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from hypothesis import given

from gpuhandoff.config import Configuration
from gpuhandoff.host.archive import LONGEST, MOST, SEARCHED, MachineArchive
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.world import World
from gpuhandoff.report.plain import plain
from gpuhandoff.report.relevance import relevance
from gpuhandoff.service.recent import MOST as MOST_RECENT
from gpuhandoff.service.recent import RecentLines
from systemd import journal  # type: ignore[attr-defined]  # its modules are C
from tests.support.worlds import gpus, worlds

CARD = PciAddress(0, 1, 0, 0)


@given(worlds())
def test_a_world_is_json_with_all_its_fields(world: World) -> None:
    found = json.loads(json.dumps(plain(world)))
    assert found["gpus"][0]["address"] == "0000:01:00.0"
    assert found["online_cpus"] == "0-7"
    assert found["available_modules"] == sorted(world.available_modules)
    assert set(found) == set(World.__dataclass_fields__)
    assert len(found["gpus"][0]["functions"]) == len(world.gpus[0].functions)


def test_a_configuration_is_json() -> None:
    configuration = Configuration(defaults={"cpus": frozenset({0, 1})}, gpus={CARD: {"timeout": 5}}, vms={"win11": {}})
    found = plain(configuration)
    assert found["defaults"] == {"cpus": "0-1"}
    assert found["gpus"] == {"0000:01:00.0": {"timeout": 5}}


LINES = {
    "nvidia 0000:01:00.0: vgaarb: deactivate vga console": True,
    "vfio-pci 0000:01:00.0: enabling device": True,
    "pcieport 0000:00:01.0: PME: Spurious native interrupt!": True,
    "NVRM: GPU at PCI:0000:01:00: GPU-1": True,
    "DMAR: [DMA Read] Request device [01:00.0] fault": True,
    "AMD-Vi: Completion-Wait loop timed out": True,
    "INFO: task kworker/0:1:12 blocked for more than 120 seconds.": True,
    "[drm] Initialized bochs-drm": True,
    "xe 0000:03:00.0: loaded": True,
    "exec: execve of something": False,
    "platform deluxe: probed": False,
    "EXT4-fs (sda1): mounted filesystem": False,
    "usb 1-1: New USB device found": False,
    "audit: type=1400 apparmor=STATUS": False,
}


@given(gpus())
def test_which_lines_of_the_kernel_matter(gpu: Any) -> None:
    matters = relevance([replace(gpu, upstream_port=PciAddress(0, 0, 1, 0))])
    assert {line: matters(line) for line in LINES} == LINES


@dataclass
class FakeReader:
    """systemd's reader over entries, newest last."""

    entries: list[Mapping[str, Any]]
    matches: list[str] = field(default_factory=list)
    read: int = 0

    def __call__(self) -> FakeReader:
        self.matches.clear()
        return self

    def __enter__(self) -> Self:
        self.left = list(self.entries)
        return self

    def __exit__(self, *arguments: object) -> None:
        self.left = []

    def this_boot(self) -> None:
        self.matches.append("boot")

    def add_match(self, **match: str) -> None:
        self.matches.extend(f"{key}={value}" for key, value in match.items())

    def add_disjunction(self) -> None:
        self.matches.append("or")

    def seek_tail(self) -> None: ...

    def get_previous(self) -> Mapping[str, Any]:
        self.read += 1
        return self.left.pop() if self.left else {}


def entries(*messages: object) -> list[Mapping[str, Any]]:
    start = datetime(2026, 11, 24, 12, 0, 0, 5000, tzinfo=UTC)
    return [
        {"MESSAGE": message, "__REALTIME_TIMESTAMP": start + timedelta(seconds=number)}
        for number, message in enumerate(messages)
    ]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    fake = FakeReader([])
    monkeypatch.setattr(journal, "Reader", fake)
    return fake


def test_the_kernels_lines_of_this_boot_oldest_first(reader: FakeReader) -> None:
    reader.entries = entries("vfio a", "noise", b"vfio \xff", "vfio b")
    archive = MachineArchive(list)
    assert archive.kernel_lines(lambda line: "vfio" in line) == [
        "2026-11-24T12:00:00.005Z vfio a",
        "2026-11-24T12:00:02.005Z b'vfio \\xff'",
        "2026-11-24T12:00:03.005Z vfio b",
    ]
    assert reader.matches == ["boot", "_TRANSPORT=kernel"]


def test_a_long_log_is_read_from_its_end_and_not_for_ever(reader: FakeReader) -> None:
    reader.entries = entries(*(f"{'vfio' if number % 2 else 'noise'} {number}" for number in range(3 * SEARCHED)))
    found = MachineArchive(list).kernel_lines(lambda line: "vfio" in line)
    assert len(found) == MOST
    assert found[-1].endswith(f"vfio {3 * SEARCHED - 1}")
    reader.read = 0
    assert MachineArchive(list).kernel_lines(lambda line: False) == []
    assert reader.read == SEARCHED
    reader.entries = entries("x" * 2 * LONGEST)
    assert [len(line) for line in MachineArchive(list).kernel_lines(lambda line: True)] == [LONGEST]


def test_no_log_of_the_kernel_is_an_error_for_people(reader: FakeReader) -> None:
    with pytest.raises(OSError, match="no line of the kernel"):
        MachineArchive(list).kernel_lines(lambda line: True)


def test_our_own_lines_where_they_are(reader: FakeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.entries = entries("ready")
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert MachineArchive(lambda: ["recent"]).daemon_lines() == ["recent"]
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert MachineArchive(lambda: ["recent"]).daemon_lines() == ["2026-11-24T12:00:00.005Z ready"]
    assert reader.matches == ["boot", "_SYSTEMD_UNIT=gpuhandoffd.service", "or", "boot", "UNIT=gpuhandoffd.service"]
    reader.entries = []
    assert MachineArchive(lambda: ["recent"]).daemon_lines() == ["recent"]


def test_recent_lines_are_few_and_have_their_tracebacks() -> None:
    recent = RecentLines()
    logger = logging.getLogger("test-of-recent-lines")
    logger.setLevel(logging.INFO)
    logger.addHandler(recent)
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("what")
    (line,) = recent.lines()
    assert " ERROR test-of-recent-lines: what\nTraceback" in line
    assert line.endswith("ValueError: why")
    for number in range(2 * MOST_RECENT):
        logger.info("%d", number)
    assert len(recent.lines()) == MOST_RECENT
    assert recent.lines()[-1].endswith(f"INFO test-of-recent-lines: {2 * MOST_RECENT - 1}")
