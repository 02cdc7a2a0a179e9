"""The course of a move while it runs: which steps, how far, how long."""

from __future__ import annotations

from collections import deque

from gpuhandoff.history.move import Taken

MOST = 64
"""Steps that are remembered of one move, the latest."""

_ENDS = {"done": "apply", "undone": "undo"}


class Course:
    """Notes every phase of every step. Times are seconds of any clock that does not jump."""

    def __init__(self) -> None:
        self.begun: float | None = None
        """When the move began; None until then."""
        self._taken: deque[Taken] = deque(maxlen=MOST)
        self._open: tuple[str, str, float] | None = None

    def note(self, step: str, phase: str, now: float) -> None:
        """Note a phase: apply and undo begin, done and undone end."""
        begins = _ENDS.get(phase)
        if begins is not None and self._open is not None and self._open[:2] == (step, begins):
            self._taken.append(Taken(step, phase, now - self._open[2]))
            self._open = None
            return
        self._settle(now)
        if begins is None:
            self._open = (step, phase, now)
        else:
            self._taken.append(Taken(step, phase, 0.0))

    def steps(self, now: float) -> tuple[Taken, ...]:
        """Return all steps so far; the one at work, or the one that failed, has the phase in which it is."""
        self._settle(now)
        return tuple(self._taken)

    def seconds(self, now: float) -> float:
        """Return how long the move has taken."""
        return 0.0 if self.begun is None else now - self.begun

    def _settle(self, now: float) -> None:
        if self._open is not None:
            step, phase, since = self._open
            self._taken.append(Taken(step, phase, now - since))
            self._open = None
