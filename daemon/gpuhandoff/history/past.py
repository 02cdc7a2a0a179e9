"""What the lines tell together. Nothing is written for what can be derived: ends that nobody could write, and ways back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from gpuhandoff.history.move import DONE, INTERRUPTED, REBOOT, RECLAIMED, REFUSED, RUNNING, STUCK, Move
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation

MOVES = 200
REFUSALS = 50
"""How many are remembered. Refusals are counted apart: whoever may ask in vain must not push out what was done."""

_WENT_DOWN = "The machine went down in the middle. The reboot undid what had been done."
_DIED = "gpuhandoffd ended in the middle."
_RECOVERED = "gpuhandoffd ended in the middle. What had been done was undone afterwards."


def fold(moves: Iterable[Move]) -> list[Move]:
    """Return one move for its beginning and its end, in the order in which they began."""
    found: dict[tuple[str, int, int], Move] = {}
    for move in moves:
        if move.outcome or move.key not in found:
            found[move.key] = move
    return list(found.values())


def newest(moves: Sequence[Move]) -> list[Move]:
    """Return those that are remembered, in their order."""
    refused = [move for move in moves if move.outcome == REFUSED]
    made = [move for move in moves if move.outcome != REFUSED]
    forgotten = {move.key for move in (*refused[:-REFUSALS], *made[:-MOVES])}
    return [move for move in moves if move.key not in forgotten]


def tell(moves: Sequence[Move], boot_id: str, running: Collection[tuple[str, int, int]]) -> list[Move]:
    """Return the moves, newest first, with the outcome of each and how the GPU came back where a move left it away.

    `boot_id` is this boot's, `running` are the keys of what is under way.
    """
    told = [_with_outcome(move, running) for move in moves]
    away: dict[PciAddress, list[int]] = {}
    for index, move in enumerate(told):
        if move.outcome in {REFUSED, RUNNING}:
            continue
        left = away.setdefault(move.gpu, [])
        if left and told[left[-1]].boot_id != move.boot_id:
            _bring_back(told, left, REBOOT)
        if move.operation == Operation.HANDOFF:
            left.clear()  # it was at home again, somehow
        if move.operation == Operation.RECLAIM and move.outcome == DONE:
            _bring_back(told, left, RECLAIMED)
        elif move.outcome in {STUCK, INTERRUPTED} or (move.operation == Operation.HANDOFF and move.outcome == DONE):
            left.append(index)
    for left in away.values():
        if left and told[left[-1]].boot_id != boot_id:
            _bring_back(told, left, REBOOT)
    return [_with_message(move) for move in reversed(told)]


def _bring_back(told: list[Move], left: list[int], how: str) -> None:
    for index in left:
        told[index] = replace(told[index], back=how)
    left.clear()


def _with_outcome(move: Move, running: Collection[tuple[str, int, int]]) -> Move:
    return move if move.outcome else replace(move, outcome=RUNNING if move.key in running else INTERRUPTED)


def _with_message(move: Move) -> Move:
    if move.outcome != INTERRUPTED:
        return move
    return replace(move, message={REBOOT: _WENT_DOWN, RECLAIMED: _RECOVERED}.get(move.back, _DIED))
