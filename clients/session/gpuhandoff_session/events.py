"""What can happen to a desktop that is to end, and what can be done about it. Pure; times are the event loop's seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gpuhandoff_session.sentences import Notice


@dataclass(frozen=True, slots=True)
class Announced:
    """A handoff that ends this desktop is about to begin, and waits for us."""

    job: str
    card: str
    """Its name."""
    vm: str
    programs: tuple[str, ...]
    more: int
    until: float
    """When the daemon goes on without us."""
    countdown: float
    """Seconds that a person should have; 0 where nobody would see it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


class Choice(Enum):
    """What the person has pressed."""

    CANCEL = "cancel"
    GO_ON = "go-on"


@dataclass(frozen=True, slots=True)
class Obstructed:
    """Programs keep the desktop from ending, with their reasons; none: no longer."""

    asking: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unable:
    """The desktop cannot be asked to end, or not by us."""


@dataclass(frozen=True, slots=True)
class Stayed:
    """The person has called the end off in a dialog of the desktop's own."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """The daemon does not take our objection."""

    job: str


@dataclass(frozen=True, slots=True)
class Removed:
    """The job has ended; what it has to say is not known yet."""

    job: str
    result: str


@dataclass(frozen=True, slots=True)
class Finished:
    """What an ended job has to say, and this desktop is still there."""

    job: str
    result: str
    message: str


@dataclass(frozen=True, slots=True)
class Deserted:
    """The daemon is gone."""


Event = Announced | Tick | Choice | Obstructed | Unable | Stayed | TooLate | Removed | Finished | Deserted


@dataclass(frozen=True, slots=True)
class Show:
    """Show a notice in place of the one before."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a Tick at this time."""

    at: float


@dataclass(frozen=True, slots=True)
class Object:
    """Tell the daemon that the handoff is not wanted, and why."""

    job: str
    why: str


class Act(Enum):
    """What needs no words."""

    LEAVE = "ask the desktop to end"
    STAY = "have the desktop stay, where it has been asked to end"
    RELEASE = "let the handoff go on"
    WITHDRAW = "take the notice away"


Effect = Show | Wake | Object | Act
