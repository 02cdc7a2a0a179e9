"""What lines tell together: ends that nobody could write, ways back, and what is forgotten."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gpuhandoff.history.move import Move
from gpuhandoff.history.past import MOVES, REFUSALS, fold, newest, tell
from gpuhandoff.model.address import PciAddress

CARD = PciAddress(0, 1, 0, 0)
OTHER = PciAddress(0, 2, 0, 0)
NOW = "this boot"
BEFORE = "the boot before"


def move(began: int, operation: str, outcome: str, boot: str = NOW, gpu: PciAddress = CARD) -> Move:
    """Return a move."""
    return Move(boot, 1, began, gpu, "a card", operation, "asked", "", 1000, outcome)


def told(*moves: Move, running: Collection[int] = ()) -> list[tuple[str, str]]:
    """Return outcomes and ways back, in the order of the moves."""
    keys = {one.key for one in moves if one.began in running}
    return [(one.outcome, one.back) for one in reversed(tell(moves, NOW, keys))]


def test_an_end_takes_the_place_of_its_beginning() -> None:
    first, second = move(1, "handoff", ""), move(2, "handoff", "", gpu=OTHER)
    ended = replace(first, outcome="done")
    assert fold([first, second, ended]) == [ended, second]
    assert fold([ended, first]) == [ended]
    assert fold([first, replace(first, boot_id=BEFORE), replace(first, job=2)]) == [
        first, replace(first, boot_id=BEFORE), replace(first, job=2),
    ]  # fmt: skip


def test_a_power_cut_in_the_middle() -> None:
    (one,) = tell([move(1, "handoff", "", BEFORE)], NOW, ())
    assert (one.outcome, one.back) == ("interrupted", "reboot")
    assert one.message == "The machine went down in the middle. The reboot undid what had been done."


def test_a_daemon_that_died_and_was_followed() -> None:
    died = move(1, "handoff", "")
    (one,) = tell([died], NOW, ())
    assert (one.outcome, one.back, one.message) == ("interrupted", "", "gpuhandoffd ended in the middle.")
    recovered = tell([died, move(2, "reclaim", "done")], NOW, ())[1]
    assert (recovered.outcome, recovered.back) == ("interrupted", "reclaimed")
    assert recovered.message.endswith("What had been done was undone afterwards.")
    assert told(died, running={1}) == [("running", "")]


def test_how_a_gpu_came_back() -> None:
    away = move(1, "handoff", "done")
    assert told(away) == [("done", "")]
    assert told(away, move(2, "reclaim", "done")) == [("done", "reclaimed"), ("done", "")]
    assert told(replace(away, boot_id=BEFORE)) == [("done", "reboot")]
    assert told(replace(away, boot_id=BEFORE), move(2, "handoff", "done")) == [("done", "reboot"), ("done", "")]
    assert told(away, move(2, "reclaim", "stuck"), move(3, "reclaim", "done")) == [
        ("done", "reclaimed"), ("stuck", "reclaimed"), ("done", ""),
    ]  # fmt: skip
    assert told(move(1, "handoff", "done", BEFORE), move(2, "reclaim", "stuck", BEFORE)) == [
        ("done", "reboot"), ("stuck", "reboot"),
    ]  # fmt: skip


def test_what_does_not_bring_a_gpu_back() -> None:
    away = move(1, "handoff", "done")
    assert told(away, move(2, "reclaim", "done", gpu=OTHER))[0] == ("done", "")
    assert told(away, move(2, "reclaim", "refused"))[0] == ("done", "")
    assert told(away, move(2, "reclaim", ""), running={2})[0] == ("done", "")
    assert told(away, move(2, "handoff", "refused"), move(3, "reclaim", "done"))[0] == ("done", "reclaimed")
    assert told(away, move(2, "handoff", "done"), move(3, "reclaim", "done"))[0] == ("done", "")  # somebody else did


def test_a_move_that_was_undone_left_nothing_away() -> None:
    for outcome in ("rolled-back", "cancelled", "failed"):
        assert told(move(1, "handoff", outcome, BEFORE)) == [(outcome, "")]


def test_refusals_do_not_push_out_moves() -> None:
    moves = [move(number, "handoff", "done") for number in range(MOVES + 5)]
    refused = [move(1000 + number, "handoff", "refused") for number in range(10 * MOVES)]
    kept = newest([*refused[:500], *moves, *refused[500:]])
    assert [one for one in kept if one.outcome == "done"] == moves[5:]
    assert [one for one in kept if one.outcome == "refused"] == refused[-REFUSALS:]


def test_the_newest_comes_first() -> None:
    assert [one.began for one in tell([move(5, "handoff", "done"), move(3, "reclaim", "done")], NOW, ())] == [3, 5]
