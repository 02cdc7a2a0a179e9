"""What a desktop that has just begun should be told, and how that is said; and the file that remembers it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff_session import sentences
from gpuhandoff_session.aftermath import Told, aftermath, all_told
from gpuhandoff_session.memory import Memory

GPU, OTHER = "0000:01:00.0", "0000:02:00.0"
ENDED = [("load-vfio", "done", 0.1), ("stop-display", "done", 2.0)]


def move(began: int, operation: str, **given: Any) -> dict[str, Any]:
    """Return a move as History has it; `began` in seconds."""
    told = {"gpu": GPU, "name": "RTX 4070", "operation": operation, "vm": "win11", "why": "asked", "outcome": "done"}
    more = {"back": "", "message": "", "guests": 0, "steps": ENDED, "seconds": 4.0, "began": began * 1_000_000}
    return told | more | given


def said(*moves: dict[str, Any], told: Told | None = None) -> list[tuple[str, str]]:
    """Return the notices of moves, which are given newest first."""
    notices, _ = aftermath(moves, told or Told())
    return [(one.title, one.body) for one in notices]


def test_everything_went_well() -> None:
    back, out = move(4904, "reclaim", vm=""), move(100, "handoff", guests=1, back="reclaimed")
    body = "win11 had it for 1 hour and 20 minutes. The desktop had ended for that."
    assert said(back, out) == [("RTX 4070 is back", body)]


def test_the_virtual_machine_did_not_start_because() -> None:
    out = move(100, "handoff", outcome="rolled-back", message="0000:01:00.0 is still open by train (pid 7).")
    assert said(out) == [
        (
            "win11 did not start: it did not get RTX 4070",
            "The desktop had ended for it. 0000:01:00.0 is still open by train (pid 7).",
        )
    ]


@pytest.mark.parametrize("why", ["guest-missing", "guest-ended"])
def test_no_virtual_machine_came(why: str) -> None:
    (notice,) = said(move(400, "reclaim", why=why), move(100, "handoff", back="reclaimed"))
    assert notice[0] == "win11 did not start"
    assert "no virtual machine has opened it" in notice[1]
    assert ("in the time that it had" in notice[1]) == (why == "guest-missing")


def test_the_way_back_failed() -> None:
    stuck = move(400, "reclaim", outcome="stuck", message="The kernel waits for train.")
    assert said(stuck, move(100, "handoff", guests=1)) == [
        ("RTX 4070 is not back from win11 as it should be", "The kernel waits for train.")
    ]
    assert said(move(100, "handoff", outcome="stuck", message="It hangs.")) == [("RTX 4070 is stuck", "It hangs.")]


def test_only_a_reboot_brought_it_back() -> None:
    assert said(move(100, "handoff", guests=1, back="reboot"))[0][0] == "RTX 4070 is back"


def test_a_handoff_that_ended_no_desktop_is_none_of_its_business() -> None:
    assert said(move(400, "reclaim"), move(100, "handoff", steps=ENDED[:1], back="reclaimed")) == []
    assert said(move(100, "handoff", steps=[], outcome="cancelled", message="It was cancelled.")) == []
    assert said(move(100, "handoff", steps=[], outcome="refused", message="No.")) == []


def test_what_is_under_way_is_told_when_it_has_ended() -> None:
    for moves in (
        [move(100, "handoff", outcome="running")],
        [move(400, "reclaim", outcome="running"), move(100, "handoff", guests=1)],
        [move(100, "handoff", guests=1)],  # it is away
    ):
        notices, told = aftermath(moves, Told())
        assert (notices, told.of(GPU)) == ((), 0)


def test_nothing_is_told_twice_and_of_each_card_the_latest() -> None:
    moves = [
        move(900, "handoff", gpu=OTHER, name="RX 6800", outcome="failed", message="It failed."),
        move(800, "reclaim"),
        move(700, "handoff", guests=1, back="reclaimed"),
        move(400, "reclaim"),
        move(100, "handoff", guests=1, back="reclaimed"),
    ]
    notices, told = aftermath(moves, Told())
    assert [one.title for one in notices] == ["win11 did not start: it did not get RX 6800", "RTX 4070 is back"]
    assert aftermath(moves, told) == ((), told)
    assert aftermath(moves, all_told(moves)) == ((), Told(900_000_000, {}))


def test_one_card_that_is_away_keeps_nothing_back_and_is_not_forgotten() -> None:
    away = move(100, "handoff", gpu=OTHER, guests=1)
    moves = [move(800, "reclaim"), move(700, "handoff", guests=1, back="reclaimed"), away]
    notices, told = aftermath(moves, Told())
    assert len(notices) == 1
    later = [move(900, "reclaim", gpu=OTHER), *moves[:2], away | {"back": "reclaimed"}]
    assert len(aftermath(later, told)[0]) == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(10, "less than a minute"), (60, "1 minute"), (300, "5 minutes"), (3600, "1 hour"), (7500, "2 hours and 5 minutes")],
)
def test_durations(seconds: float, words: str) -> None:
    assert sentences.duration(seconds) == words


def test_names_in_a_sentence() -> None:
    assert sentences.listed(["Kate"]) == "Kate"
    assert sentences.listed(["Firefox", "Kate"]) == "Firefox and Kate"
    assert sentences.listed(["Firefox", "Kate", "VLC"], 2) == "Firefox, Kate, VLC and 2 more"
    assert len(sentences.unanswered(["x" * 120, "y" * 120])) <= 200


def test_what_outlives_a_desktop(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "gpuhandoff" / "session.json")
    assert memory.load() is None
    told = Told(5, {GPU: 7})
    memory.save(told)
    assert memory.load() == told
    assert stat.S_IMODE((tmp_path / "gpuhandoff/session.json").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "gpuhandoff").iterdir()] == ["session.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"version": 2}',
        '{"version": 1, "since": "x", "cards": {}}',
        "\0",
        '{"version": 1, "since": 1, "cards": 3}',
    ],
)
def test_a_file_that_says_nothing_was_never_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "session.json").write_text(text)
    assert Memory(tmp_path / "session.json").load() is None
