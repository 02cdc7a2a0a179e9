"""One move as history keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from gpuhandoff.model.address import PciAddress

DONE, STUCK, REFUSED = "done", "stuck", "refused"
"""Outcomes that decide something here; the others are cancelled, rolled-back, failed."""
RUNNING, INTERRUPTED = "running", "interrupted"
"""Told of moves that have no end: one is under way, the other's daemon or machine died."""
RECLAIMED, REBOOT = "reclaimed", "reboot"
"""How a GPU came back that a move had left away."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A step in one direction. `phase` is done or undone; apply or undo when it did not come to its end."""

    step: str
    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Move:
    """A move, or a request for one that was refused before its first step."""

    boot_id: str
    job: int
    began: int
    """Microseconds since the epoch."""
    gpu: PciAddress
    name: str
    operation: str
    why: str
    vm: str
    uid: int
    outcome: str = ""
    """Empty until the move has ended."""
    seconds: float = 0.0
    steps: tuple[Taken, ...] = ()
    message: str = ""
    card: str = ""
    """Which card it was, by its ids; empty in lines of earlier versions."""
    kernel: str = ""
    """Release of the kernel."""
    guests: int = 0
    """Virtual machines that had the card while it was away."""
    lost: bool = False
    """Whether it was the card that did not come back, and nobody held it."""
    back: str = ""
    """How the GPU came back; never written down, it follows from what came later."""

    @property
    def key(self) -> tuple[str, int, int]:
        """What no two moves have in common: job numbers begin again with each daemon."""
        return (self.boot_id, self.began, self.job)

    def repeats(self, other: Move) -> bool:
        """Tell whether both are the same refusal."""
        mine = (self.gpu, self.operation, self.why, self.vm, self.uid, self.outcome, self.message)
        return self.outcome == REFUSED and mine == (
            (other.gpu, other.operation, other.why, other.vm, other.uid, other.outcome, other.message)
        )
