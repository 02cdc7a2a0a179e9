"""One thing that was found: how bad it is, what it is, how that shows, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """From bad to good."""

    PROBLEM = "problem"
    """Something will not work."""
    WARNING = "warning"
    """Something may go wrong, or gets in the way."""
    NOTE = "note"
    FINE = "fine"

    @property
    def rank(self) -> int:
        """Order them, the worst first."""
        return tuple(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` names the kind of finding, for programs; `gpu` is an address, or empty for the machine."""

    severity: Severity
    check: str
    what: str
    evidence: str = ""
    remedy: str = ""
    gpu: str = ""
