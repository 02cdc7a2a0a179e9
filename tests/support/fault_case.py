"""What goes wrong when, for whom: one case of the fault matrix."""

from __future__ import annotations

from dataclasses import dataclass

from gpuhandoff.simulation.faults import Operation

DIRECTIONS = ("handoff", "reclaim", "rollback", "recovery")
"""A rollback is a handoff whose last write fails; a recovery one whose daemon is killed there. Both undo everything."""
MOMENTS = ("", "before", "during", "after", "unwritten", "written", "undo", "later")
"""When the daemon is killed: never; just before the operation with the fault reaches the machine; while it is under way;
when it has come to its end, before the daemon knows; at the next line of the journal, before it is written or after; at the
next operation of an undo; when all has come to an end."""
NOTHING = Operation("", "")


class UnexpectedError(AssertionError):
    """An end that must not be."""


@dataclass(frozen=True, slots=True)
class Case:
    """What goes wrong when, for whom."""

    scenario: str
    direction: str
    operation: Operation
    nth: int
    """Which of the operations that are the same."""
    fault: str = ""
    moment: str = ""

    def __str__(self) -> str:
        """Return what a person needs to see what was tried."""
        what = f"{self.operation.kind} {self.operation.target} {self.operation.detail!r} ({self.nth})"
        return f"{self.scenario} {self.direction}: {what}: {self.fault or 'no fault'}, killed {self.moment or 'never'}"


@dataclass(frozen=True, slots=True)
class Done:
    """An operation as it was seen in a move without faults, and the step that it was part of."""

    operation: Operation
    nth: int
    step: str
    phase: str
