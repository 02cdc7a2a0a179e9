"""The journal: what is written is read, and a file torn at any byte is still understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.model.address import PciAddress
from gpuhandoff.transaction.journal import JournalDirectory, Record, parse

CARD = PciAddress(0, 1, 0, 0)
STEPS = [
    {"name": "inhibit-sleep", "arguments": {"gpu": "x"}},
    {"name": "claim-functions", "arguments": {"functions": []}},
]


def written(directory: Path) -> str:
    """Return the text of a journal that has seen everything."""
    journal = JournalDirectory(directory).create(CARD, boot="b", job=1, operation="handoff", vm="win11", steps=STEPS)
    journal.append(will=0, saved={"before": "ä"})
    journal.append(did=0)
    journal.append(will=1, saved={"override": None})
    journal.append(did=1)
    journal.append(held=True)
    journal.append(undoing="reclaim")
    journal.append(undone=1)
    journal.append(stuck=0, message="held by x")
    journal.close()
    return journal.path.read_text()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = parse(written(tmp_path))
    assert record is not None
    assert (record.gpu, record.job, record.operation, record.vm, record.boot_id) == (CARD, 1, "handoff", "win11", "b")
    assert [entry.saved for entry in record.entries] == [{"before": "ä"}, {"override": None}]
    assert record.held
    assert not record.complete
    assert record.stuck == "held by x"
    assert [entry.index for entry in record.to_undo()] == [0]


def test_torn_at_every_byte_it_says_no_more_than_was_flushed(tmp_path: Path) -> None:
    whole = written(tmp_path).encode()
    lines = whole.split(b"\n")
    for length in range(len(whole) + 1):
        record = parse(whole[:length].decode(errors="replace"))
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
        JournalDirectory(tmp_path).create(CARD, boot="b", job=2, operation="handoff", steps=[])


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
    assert isinstance(parse(text), Record | None)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["will", "did", "undone", "held", "undoing", "stuck", "saved", "message"]),
            st.integers(-3, 3) | st.booleans() | st.text(max_size=3) | st.just({}),
        ),
        max_size=12,
    )
)
def test_any_lines_after_a_good_header_are_survived(lines: list[dict[str, object]]) -> None:
    header = {"journal": 1, "boot": "b", "job": 1, "operation": "handoff", "gpu": str(CARD), "steps": STEPS}
    record = parse("\n".join(json.dumps(line) for line in [header, *lines]))
    assert record is not None
    assert len(record.entries) == len(STEPS)
