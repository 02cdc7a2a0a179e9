"""What the moves of one card tell about its way back from guests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gpuhandoff.history.move import DONE, INTERRUPTED, REBOOT, RECLAIMED, STUCK, Move
from gpuhandoff.model.request import Operation
from gpuhandoff.model.verdict import Experience, Loss

_WENT_DOWN = "The machine went down while the card was taken back."


def experience(told: Iterable[Move], card: str, boot_id: str) -> Experience:
    """Return what moves, oldest first and with their outcomes told, say of the card with this identity.

    Only what a guest has used counts: a card that nobody has used comes back from vfio-pci without a reset.
    """
    found = Experience()
    runs: dict[str, int] = {}
    used = False
    for move in told:
        if move.card != card or not card:
            continue
        if move.operation == Operation.HANDOFF and move.outcome == DONE:
            runs[move.boot_id] = runs.get(move.boot_id, 0) + move.guests
            used = move.guests > 0
        elif move.operation == Operation.RECLAIM and used and (ended := _ended(move)) is not None:
            run = runs.get(move.boot_id, 0)
            found = _came_back(found, move, run) if ended else _was_lost(move, run)
            used = used and not ended
    return replace(found, runs=runs.get(boot_id, 0))


def _ended(move: Move) -> bool | None:
    """Tell whether a Reclaim brought the card back, None where it says nothing about the card."""
    if move.outcome == DONE:
        return True
    lost = move.outcome == STUCK and move.lost and move.back != RECLAIMED
    return False if lost or (move.outcome == INTERRUPTED and move.back == REBOOT) else None


def _came_back(found: Experience, move: Move, run: int) -> Experience:
    again = run > 1
    return replace(
        found,
        returns=found.returns + 1,
        repeats=found.repeats + again,
        kernels=found.kernels | {move.kernel},
        repeat_kernels=found.repeat_kernels | ({move.kernel} if again else set()),
        loss=None if found.loss is not None and run >= found.loss.run else found.loss,
    )


def _was_lost(move: Move, run: int) -> Experience:
    """A loss outweighs whatever went well before it."""
    message = move.message if move.outcome == STUCK else _WENT_DOWN
    return Experience(loss=Loss(move.boot_id, move.kernel, move.began, max(run, 1), message))
