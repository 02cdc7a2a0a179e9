"""The journal: what is written is read, and a file torn at any byte is still understood."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.world import Process
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.record import Record, parse

CARD = PciAddress(0, 1, 0, 0)
BEGUN = ({"step": "inhibit-sleep", "arguments": {"gpu": "x"}}, {"step": "claim-functions", "arguments": {"functions": []}})


KEYS = (
    *("journal", "boot", "job", "operation", "vm", "steps", "nodes", "lease", "guest_timeout", "will", "step", "arguments"),
    *("saved", "did", "undone", "held", "at", "guest", "undoing", "stuck", "message"),
)


def written(directory: Path) -> str:
    """Return the text of a journal that has seen everything."""
    journal = JournalDirectory(directory).create(
        CARD,
        boot="b",
        job=1,
        operation="handoff",
        vm="win11",
        steps=2,
        nodes=["/dev/dri/card0"],
        lease=":1.9",
        guest_timeout=60,
    )
    journal.append(will=0, **BEGUN[0], saved={"before": "ä"})
    journal.append(did=0)
    journal.append(will=1, **BEGUN[1], saved={"override": None})
    journal.append(did=1)
    journal.append(held=True, at=12.5)
    journal.append(guest={"pid": 7, "start_time": 8, "name": "qemu", "uid": 9})
    journal.append(undoing="reclaim")
    journal.append(undone=1)
    journal.append(stuck=0, message="held by x")
    journal.close()
    return journal.path.read_text()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = parse(written(tmp_path), CARD)
    assert record is not None
    assert (record.gpu, record.job, record.operation, record.vm, record.boot_id) == (CARD, 1, "handoff", "win11", "b")
    assert [entry.saved for entry in record.entries] == [{"before": "ä"}, {"override": None}]
    assert (record.nodes, record.lease, record.guest_timeout) == (("/dev/dri/card0",), ":1.9", 60)
    assert (record.held, record.held_at, record.guest) == (True, 12.5, Process(7, 8, "qemu", 9))
    assert not record.complete
    assert record.stuck == "held by x"
    assert [entry.index for entry in record.to_undo()] == [0]


def test_torn_at_every_byte_it_says_no_more_than_was_flushed(tmp_path: Path) -> None:
    whole = written(tmp_path).encode()
    lines = whole.split(b"\n")
    for length in range(len(whole) + 1):
        record = parse(whole[:length].decode(errors="replace"), CARD)
        complete = whole[:length].count(b"\n")
        if complete == 0 and length < len(lines[0]):
            assert record is None
            continue
        assert record is not None
        wills = sum(b'"will"' in line for line in lines[: complete + 1] if line in whole[:length].split(b"\n"))
        assert sum(entry.saved is not None for entry in record.entries) == wills


def test_a_torn_line_stays_torn_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    written(tmp_path)
    directory = JournalDirectory(tmp_path)
    path = tmp_path / f"{CARD}.journal"
    path.write_bytes(path.read_bytes()[:-5])
    journal = directory.open(CARD)
    journal.append(undone=0)
    journal.close()
    record = directory.record(CARD)
    assert record is not None
    assert record.stuck == ""
    assert all(entry.undone for entry in record.entries)


def test_a_second_journal_for_the_same_gpu_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(FileExistsError):
        JournalDirectory(tmp_path).create(CARD, boot="b", job=2, operation="handoff", steps=0)


def test_addresses_ignores_what_is_no_journal(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "notes.journal").touch()
    (tmp_path / "hook-patterns").touch()
    assert JournalDirectory(tmp_path).addresses() == [CARD]
    assert JournalDirectory(tmp_path / "absent").addresses() == []


def test_a_journal_is_for_root_only(tmp_path: Path) -> None:
    written(tmp_path)
    assert (tmp_path / f"{CARD}.journal").stat().st_mode & 0o777 == 0o600


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).map(json.dumps)
)
def test_any_text_is_read_or_refused_never_an_exception(text: str) -> None:
    assert isinstance(parse(text, CARD), Record | None)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(KEYS),
            st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.just({}) | st.just([1]) | st.none(),
        ),
        max_size=12,
    )
)
def test_any_lines_are_survived(lines: list[dict[str, object]]) -> None:
    header = {"journal": 2, "boot": "b", "job": 1, "operation": "handoff", "gpu": str(CARD), "steps": 2}
    record = parse("\n".join(json.dumps(line) for line in [header, *lines]), CARD)
    assert record is not None
    assert record.gpu == CARD


@pytest.mark.parametrize("damaged", range(10))
def test_a_damaged_line_takes_nothing_with_it_but_itself(tmp_path: Path, damaged: int) -> None:
    lines = written(tmp_path).split("\n")
    lines[damaged] = lines[damaged][:3] + "#" + lines[damaged][4:]
    record = parse("\n".join(lines), CARD)
    assert record is not None
    begun = {index for index in (0, 1) if damaged != 1 + 2 * index}
    assert {entry.index for entry in record.entries} == begun
    undone = {1} if damaged != 8 else set()
    assert {entry.index for entry in record.to_undo()} == begun - undone
    assert record.vm == ("win11" if damaged else "")


def test_another_version_is_understood_as_far_as_its_lines_say_the_same() -> None:
    lines = [{"journal": 9, "era": "future"}, {"will": 0, **BEGUN[0], "saved": {}}, {"did": 0}, {"holds": 1}]
    record = parse("\n".join(json.dumps(line) for line in lines), CARD)
    assert record is not None
    assert [entry.name for entry in record.to_undo()] == ["inhibit-sleep"]
    assert parse('{"journal": 9, "era": "future"}\n{"begin": 0}\n', CARD) is None


def test_what_is_no_file_has_no_record_and_can_be_set_aside(tmp_path: Path) -> None:
    directory = JournalDirectory(tmp_path)
    (tmp_path / f"{CARD}.journal").mkdir()
    assert directory.record(CARD) is None
    with pytest.raises(IsADirectoryError):
        directory.is_blank(CARD)
    directory.set_aside(CARD)
    assert (directory.addresses(), directory.has_aside(CARD)) == ([], True)


def test_a_line_that_was_written_in_part_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = JournalDirectory(tmp_path)
    journal = directory.create(CARD, boot="b", job=1, operation="handoff", steps=1)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:9]))
        with pytest.raises(OSError, match="in full"):
            journal.append(will=0, **BEGUN[0], saved={})
    journal.append(undoing="disk full")
    journal.close()
    record = directory.record(CARD)
    assert record is not None
    assert (record.entries, record.undoing) == ((), "disk full")
