"""Whether a card comes back from a guest: the judgement, and what this machine has shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NO_SOURCE = "none found"
"""What the tables have for a source where there is none."""


class Kind(StrEnum):
    """How likely the host gets a card back that a guest has used, from good to bad."""

    SAFE = "safe"
    UNKNOWN = "unknown"
    CAUTION = "caution"
    NEEDS_VENDOR_RESET = "needs vendor-reset"
    """Without that module it comes back once a boot, if at all."""
    ONCE_PER_BOOT = "once per boot"
    BROKEN = "broken"

    @property
    def severity(self) -> int:
        """Order them: the greater, the worse."""
        return tuple(Kind).index(self)


@dataclass(frozen=True, slots=True)
class Loss:
    """A card that a guest had used and the host could not take back."""

    boot_id: str
    kernel: str
    began: int
    """Microseconds since the epoch: of the attempt."""
    run: int
    """The how-manieth guest of that boot had used it."""
    message: str


@dataclass(frozen=True, slots=True)
class Experience:
    """What history tells of one card, told apart by its place and its subsystem id."""

    runs: int = 0
    """Guests that have used it since the machine was booted."""
    returns: int = 0
    """How often it came back after a guest, since it was lost for the last time."""
    repeats: int = 0
    """Of these, after the second or a later guest of one boot."""
    kernels: frozenset[str] = frozenset()
    """Releases of the kernels on which it did."""
    repeat_kernels: frozenset[str] = frozenset()
    """Of these, on which it did after the second or a later guest of one boot."""
    loss: Loss | None = None
    """The last time that it did not; None when it has come back since, after as many guests."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to expect when a card has been with a guest, why, and who says so."""

    kind: Kind
    reason: str
    """A sentence or two for a person."""
    source: str
    """Where that is said, or `this machine`."""
    runs: int = 0
    """Guests that have used the card since the machine was booted."""
    needed: bool = True
    """Whether the host has to get it back: else the verdict matters to nobody but its guests."""
    leaving: bool = False
    """Whether the risk is already in the way out."""
    by_kernel: bool = False
    """Whether it is this kernel's fault, and another one would do."""

    @property
    def refuses(self) -> bool:
        """Whether the next guest needs the consent accept-risk."""
        if self.kind is Kind.BROKEN:
            return self.needed or self.leaving or self.runs > 0
        return self.kind in {Kind.NEEDS_VENDOR_RESET, Kind.ONCE_PER_BOOT} and self.runs > 0
