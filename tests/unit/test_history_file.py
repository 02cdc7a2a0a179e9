"""history.jsonl: torn, garbled, full, interrupted, in other hands; what was whole stays, and nothing is fatal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuhandoff.history import file as file_module
from gpuhandoff.history.file import KEPT, LARGEST, NAME, NEW, HistoryFile
from gpuhandoff.history.line import LONGEST, read, write
from gpuhandoff.history.move import Move, Taken
from gpuhandoff.history.past import fold
from gpuhandoff.model.address import PciAddress

CARD = PciAddress(0, 1, 0, 0)
BEGUN = Move("boot", 1, 1_764_000_000_000_000, CARD, "NVIDIA GeForce RTX 4070", "handoff", "asked", "win11", 1000)
ENDED = replace(BEGUN, outcome="done", seconds=4.25, steps=(Taken("bind-vfio", "done", 0.125),), message="ä")


def number(count: int) -> Move:
    """Return one of many moves."""
    return replace(ENDED, job=count, began=BEGUN.began + count)


def moves(directory: Path) -> list[Move]:
    """Return what the file says."""
    found = [read(line) for line in HistoryFile(directory).lines()]
    return [move for move in found if move is not None]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "state")
    assert history.lines() == []
    history.append(write(BEGUN), flush=True)
    size = history.append(write(ENDED), flush=True)
    path = tmp_path / "state" / NAME
    assert size == path.stat().st_size
    assert moves(tmp_path / "state") == [BEGUN, ENDED]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_beginning_is_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    size = HistoryFile(tmp_path).append(write(BEGUN), flush=True)
    assert flushed == [size]
    HistoryFile(tmp_path).append(write(ENDED), flush=False)
    assert flushed == [size]


def test_torn_at_every_byte_all_that_was_whole_is_read_and_what_follows_too(tmp_path: Path) -> None:
    written = [number(1), number(2), number(3)]
    lines = [write(move) for move in written]
    whole = b"".join(lines)
    path = tmp_path / NAME
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        ends = [sum(len(line) for line in lines[: count + 1]) for count in range(3)]
        expected = [move for move, end in zip(written, ends, strict=True) if end <= length + 1]  # the newline may be missing
        assert moves(tmp_path) == expected, length
        HistoryFile(tmp_path).append(write(number(4)), flush=True)
        assert moves(tmp_path) == [*expected, number(4)], length


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200) | st.sampled_from([write(BEGUN), write(ENDED)])))
def test_any_bytes_are_survived(tmp_path: Path, parts: list[bytes]) -> None:
    (tmp_path / NAME).write_bytes(b"\n".join(parts))
    assert all(move in {BEGUN, ENDED} for move in moves(tmp_path))
    HistoryFile(tmp_path).append(write(number(9)), flush=True)
    assert moves(tmp_path)[-1] == number(9)
    assert len(fold(moves(tmp_path))) <= 2


def test_a_replacement_holds_the_newest_that_fit(tmp_path: Path) -> None:
    lines = [write(replace(number(count), message="m" * 1000)) for count in range(2000)]
    size = HistoryFile(tmp_path).replace(lines)
    assert KEPT - LONGEST < size <= KEPT
    found = moves(tmp_path)
    assert [move.job for move in found] == list(range(2000 - len(found), 2000))
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("moment", ["open", "write", "fsync", "replace"])
def test_a_replacement_that_is_interrupted_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """As a power cut would: what comes after that moment is never done, not even the clearing up."""
    HistoryFile(tmp_path).append(write(number(1)), flush=True)

    def cut(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path if moment == "replace" else os, moment, cut)
        with pytest.raises(KeyboardInterrupt):
            HistoryFile(tmp_path).replace([write(number(2))])
    assert moves(tmp_path) == [number(1)]
    HistoryFile(tmp_path).replace([write(number(2))])
    assert moves(tmp_path) == [number(2)]
    assert os.listdir(tmp_path) == [NAME]


def test_a_replacement_that_does_not_fit_on_the_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HistoryFile(tmp_path).append(write(number(1)), flush=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half(os.write))
        with pytest.raises(OSError, match="No space left") as caught:
            HistoryFile(tmp_path).replace([write(number(2))])
    assert caught.value.errno == errno.ENOSPC
    assert moves(tmp_path) == [number(1)]
    assert not (tmp_path / NEW).exists()


def half(write_all: Callable[[int, bytes], int]) -> Callable[[int, bytes], int]:
    """Return a write on a disk that is nearly full."""
    return lambda descriptor, data: write_all(descriptor, data[: len(data) // 2])


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = HistoryFile(tmp_path)
    history.append(write(number(1)), flush=True)
    before = (tmp_path / NAME).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half(os.write))
        with pytest.raises(OSError, match="No space left"):
            history.append(write(number(2)), flush=True)
    assert (tmp_path / NAME).read_bytes() == before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "shadow"
    target.write_bytes(b"secret\n")
    state = tmp_path / "state"
    state.mkdir()
    (state / NAME).symlink_to(target)
    for act in (HistoryFile(state).lines, lambda: HistoryFile(state).append(write(BEGUN), flush=True)):
        with pytest.raises(OSError, match="symbolic links") as caught:
            act()
        assert caught.value.errno == errno.ELOOP
    (state / NEW).symlink_to(target)
    HistoryFile(state).replace([write(BEGUN)])
    assert target.read_bytes() == b"secret\n"
    assert not (state / NAME).is_symlink()


def test_a_pipe_is_neither_read_nor_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / NAME)
    for act in (HistoryFile(tmp_path).lines, lambda: HistoryFile(tmp_path).append(write(BEGUN), flush=True)):
        with pytest.raises(OSError, match="not a regular file"):
            act()


def test_a_file_that_grew_without_us_is_read_from_its_end_and_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with path.open("wb") as file:
        file.truncate(LARGEST + 100)
    with path.open("ab") as file:
        file.write(b"\n" + write(ENDED))
    assert moves(tmp_path) == [ENDED]
    with pytest.raises(OSError, match="too large"):
        HistoryFile(tmp_path).append(write(BEGUN), flush=True)


def test_a_directory_that_is_not_there_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "a" / "b")
    assert history.lines() == []
    with pytest.raises(FileNotFoundError):
        history.append(write(BEGUN), flush=True)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|directory"):
        HistoryFile(tmp_path / "file").append(write(BEGUN), flush=True)


def test_the_directory_is_flushed_when_the_file_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(file_module.HistoryFile, "_flush_directory", lambda history: flushed.append("directory"))
    HistoryFile(tmp_path).append(write(BEGUN), flush=True)
    HistoryFile(tmp_path).append(write(ENDED), flush=True)
    assert flushed == ["directory"]
    HistoryFile(tmp_path).replace([write(ENDED)])
    assert flushed == ["directory", "directory"]
