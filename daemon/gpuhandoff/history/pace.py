"""How long steps took on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpuhandoff.history.move import DONE, Move
from gpuhandoff.model.address import PciAddress

LATEST = 10
"""Of each step that many count."""


def median(seconds: Iterable[float]) -> float:
    """Return the middle one, of an even number the mean of the two: `statistics` brings a megabyte along."""
    ordered = sorted(seconds)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def pace(moves: Iterable[Move], gpu: PciAddress, phase: str) -> Mapping[str, float]:
    """Return the usual seconds of each step of a GPU in a phase, done or undone, from moves that are told newest first."""
    found: dict[str, list[float]] = {}
    for move in moves:
        if move.gpu == gpu and move.outcome == DONE:
            for taken in move.steps:
                if taken.phase == phase and len(found.setdefault(taken.step, [])) < LATEST:
                    found[taken.step].append(taken.seconds)
    return {step: median(seconds) for step, seconds in found.items() if seconds}
