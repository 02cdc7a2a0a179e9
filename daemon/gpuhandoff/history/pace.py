"""How long steps took on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from gpuhandoff.history.move import DONE, Move
from gpuhandoff.model.address import PciAddress

LATEST = 10
"""Of each step that many count."""


def pace(moves: Iterable[Move], gpu: PciAddress, phase: str) -> Mapping[str, float]:
    """Return the usual seconds of each step of a GPU in a phase, done or undone, from moves that are told newest first."""
    found: dict[str, list[float]] = {}
    for move in moves:
        if move.gpu == gpu and move.outcome == DONE:
            for taken in move.steps:
                if taken.phase == phase and len(found.setdefault(taken.step, [])) < LATEST:
                    found[taken.step].append(taken.seconds)
    return {step: median(seconds) for step, seconds in found.items() if seconds}
