"""How a desktop takes its leave: what happens, and what is done about it. Pure; times are the event loop's seconds.

A handoff that ends this desktop waits for us until `until`. First the person has a countdown, then the desktop is asked to
end by itself. Our end, with the desktop's, releases the handoff. Whoever says no in time, the person or a program that asks
about unsaved changes, makes us object: then nothing has been touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from gpuhandoff_session import sentences
from gpuhandoff_session.sentences import Notice

RESERVE = 5.0
"""Seconds before the daemon goes on without us in which we have objected, if we do."""
SHARE = 3
"""The countdown takes no more than this part of the time that there is: programs need some to close."""


class Stage(Enum):
    """Where we are."""

    QUIET = "quiet"
    COUNTDOWN = "countdown"
    LEAVING = "leaving"
    """The desktop has been asked to end."""
    OVER = "over"
    """We have objected, or let it go on; the job has not ended yet."""


@dataclass(frozen=True, slots=True)
class Parting:
    """A handoff that ends this desktop."""

    job: str
    card: str
    """Its name."""
    vm: str
    programs: tuple[str, ...]
    more: int
    until: float
    leaves_at: float
    """When the desktop is asked to end."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known."""

    stage: Stage = Stage.QUIET
    parting: Parting | None = None
    asking: tuple[str, ...] = ()
    """Programs, and why, that keep the desktop from ending."""
    objection: str = ""
    """Why we have objected."""


# What happens.


@dataclass(frozen=True, slots=True)
class Announced:
    """A handoff that ends this desktop is about to begin."""

    job: str
    card: str
    vm: str
    programs: tuple[str, ...]
    more: int
    until: float
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


Event = Announced | Tick | Choice | Obstructed | Unable | Stayed | Removed | Finished | Deserted

# What is done.


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
Step = tuple[State, tuple[Effect, ...]]


def step(state: State, event: Event, now: float) -> Step:
    """Return what is known after an event, and what is to be done."""
    if isinstance(event, Announced):
        return _announced(event, now)
    if state.parting is None:
        return state, ()
    match event:
        case Removed(job, result):
            return _removed(state, result) if job == state.parting.job else (state, ())
        case Finished():
            return _finished(state, state.parting, event)
        case Deserted():
            return State(), (*_stay(state), Act.WITHDRAW)
    if state.stage in {Stage.OVER, Stage.QUIET}:
        return state, ()
    return _going(state, state.parting, event, now)


def _announced(event: Announced, now: float) -> Step:
    there = max(event.until - RESERVE - now, 0.0)
    leaves_at = now + min(event.countdown, there / SHARE)
    parting = Parting(event.job, event.card, event.vm, event.programs, event.more, event.until, leaves_at)
    if leaves_at <= now:
        return _leave(State(Stage.LEAVING, parting), parting)
    return _count(State(Stage.COUNTDOWN, parting), parting, now)


def _going(state: State, parting: Parting, event: Event, now: float) -> Step:
    match event:
        case Choice.CANCEL:
            return _object(state, parting, sentences.declined())
        case Stayed():
            return _object(state, parting, sentences.called_off())
        case Choice.GO_ON if state.stage is Stage.COUNTDOWN:
            return _leave(state, parting)
        case Unable():
            return replace(state, stage=Stage.OVER), (Act.RELEASE,)
        case Obstructed(asking) if not asking and state.asking:
            return _leave(replace(state, asking=()), parting)
        case Obstructed(asking):
            return replace(state, asking=asking), (Show(sentences.obstructed(asking)),)
        case Tick() if state.stage is Stage.COUNTDOWN:
            return _count(state, parting, now) if now < parting.leaves_at else _leave(state, parting)
        case Tick() if now >= parting.until - RESERVE:
            return _object(state, parting, sentences.unanswered(state.asking))
    return state, ()


def _count(state: State, parting: Parting, now: float) -> Step:
    """Show how long there is still, and come back when that has changed enough to be shown."""
    left = parting.leaves_at - now
    notice = sentences.countdown(parting.card, parting.vm, parting.programs, parting.more, left)
    return state, (Show(notice), Wake(now + sentences.next_change(left)))


def _leave(state: State, parting: Parting) -> Step:
    leaving = replace(state, stage=Stage.LEAVING)
    return leaving, (Show(sentences.leaving(parting.card, parting.vm)), Act.LEAVE, Wake(parting.until - RESERVE))


def _object(state: State, parting: Parting, why: str) -> Step:
    return replace(state, stage=Stage.OVER, objection=why), (Object(parting.job, why), *_stay(state))


def _stay(state: State) -> tuple[Act, ...]:
    """A desktop that we have asked to end would end later, on its own: programs that still ask would lose their answer."""
    return (Act.STAY,) if state.stage is Stage.LEAVING else ()


def _removed(state: State, result: str) -> Step:
    """Nobody ends a desktop for what is over."""
    return replace(state, stage=Stage.OVER), _stay(state) if result != "done" else ()


def _finished(state: State, parting: Parting, event: Finished) -> Step:
    if event.job != parting.job:
        return state, ()
    ours = state.objection and event.result == "cancelled"
    message = sentences.refused(state.objection) if ours else event.message
    return State(), (Show(sentences.finished(parting.card, parting.vm, event.result, message)),)
