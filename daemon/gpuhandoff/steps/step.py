"""What a step is."""

from __future__ import annotations

from typing import Protocol

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json


class GoneError(RolledBackError):
    """The GPU has left the PCI bus: nothing can be undone about it before it is there again."""


class IncompleteError(RolledBackError):
    """The host has the GPU again and shows its picture with it, but something that belongs to it is missing."""


class Step(Protocol):
    """One reversible change of the machine.

    `arguments` come from the plan, `saved` is what `capture` returned; both are plain JSON and in the journal before
    `apply` is called. `undo` works from them alone, in a daemon that has just started, after an `apply` that ran
    fully, partly or not at all; it may be called again after it succeeded or failed. Steps raise ProblemError where
    they know the cause, OSError where the kernel refused, OverdueError where it does not answer.
    """

    name: str
    needs_gpu: bool
    """Whether undoing it touches the GPU or relies on the GPU being back: skipped once the GPU is stuck."""

    has_undo: bool
    """Whether undo does anything: what still hangs of a step without is in nobody's way."""

    volatile: bool
    """Whether its effect ends with the daemon: a daemon that takes over an open handoff applies it again."""

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Return what `apply` is about to change, as it is now. Changes nothing."""

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Bring the change about and verify it."""

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Bring back what was captured, whatever part of it is missing, and verify it."""

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether the change is in effect."""
