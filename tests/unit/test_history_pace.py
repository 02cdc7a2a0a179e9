"""How long steps usually take: from moves that went well, of this GPU, in this direction, the latest."""

from __future__ import annotations

from gpuhandoff.history.move import Move, Taken
from gpuhandoff.history.pace import LATEST, pace
from gpuhandoff.model.address import PciAddress

CARD, OTHER = PciAddress(0, 1, 0, 0), PciAddress(0, 2, 0, 0)


def move(seconds: float, outcome: str = "done", phase: str = "done", gpu: PciAddress = CARD) -> Move:
    taken = (Taken("bind-vfio", phase, seconds),)
    return Move("b", 1, 1, gpu, "a card", "handoff", "asked", "", 0, outcome, seconds, taken)


def test_the_usual_is_what_lies_in_the_middle() -> None:
    assert pace([move(1), move(9), move(2)], CARD, "done") == {"bind-vfio": 2}
    assert pace([], CARD, "done") == {}


def test_what_failed_or_was_another_card_or_way_does_not_count() -> None:
    moves = [move(1), move(9, "failed"), move(9, phase="undone"), move(9, gpu=OTHER)]
    assert pace(moves, CARD, "done") == {"bind-vfio": 1}


def test_only_the_latest_count() -> None:
    assert pace([move(1)] * LATEST + [move(9)] * LATEST * 2, CARD, "done") == {"bind-vfio": 1}
