"""How a desktop takes its leave: what happens, and what is done about it. Pure; times are the event loop's seconds.

A handoff that ends this desktop waits for us for a while. First the person has a countdown, then the desktop is asked to
end by itself. Our end, with the desktop's, releases the handoff. Whoever says no in time, the person or a program that asks
about unsaved changes, makes us object: then nothing has been touched.

A desktop that spans two cards can be wanted for both at a time. It ends once, or stays: one countdown, one answer, for all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from gpuhandoff_session import sentences
from gpuhandoff_session.events import (
    Act,
    Announced,
    Choice,
    Deserted,
    Effect,
    Event,
    Finished,
    Object,
    Obstructed,
    Removed,
    Show,
    Stayed,
    Tick,
    TooLate,
    Unable,
    Wake,
)

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

    asked: Announced
    leaves_at: float
    """When the desktop is asked to end."""
    objection: str = ""
    """Why we have objected."""

    @property
    def objects_at(self) -> float:
        """When we object, unless the desktop has ended."""
        return self.asked.until - RESERVE


@dataclass(frozen=True, slots=True)
class State:
    """What is known."""

    stage: Stage = Stage.QUIET
    waiting: tuple[Parting, ...] = ()
    """What waits for us, the oldest first."""
    settled: tuple[Parting, ...] = ()
    """What does not any more, and has not ended yet."""
    asking: tuple[str, ...] = ()
    """Programs, and why, that keep the desktop from ending."""

    @property
    def under_way(self) -> bool:
        """Whether there is any handoff that ends this desktop."""
        return bool(self.waiting or self.settled)

    @property
    def leaves_at(self) -> float:
        """When the desktop is asked to end."""
        return min(one.leaves_at for one in self.waiting)

    @property
    def objects_at(self) -> float:
        """When we object at the latest."""
        return min(one.objects_at for one in self.waiting)


Step = tuple[State, tuple[Effect, ...]]


def step(state: State, event: Event, now: float) -> Step:
    """Return what is known after an event, and what is to be done."""
    match event:
        case Announced():
            return _announced(state, event, now)
        case Removed(job, result):
            return _removed(state, job, result, now)
        case Finished():
            return _finished(state, event)
        case TooLate(job):
            late = [one for one in state.settled if one.asked.job == job]
            return state, tuple(Show(sentences.too_late(one.asked.card, one.asked.vm)) for one in late)
        case Deserted() if state.under_way:
            return State(), (*_stay(state), Act.WITHDRAW)
    return _going(state, event, now) if state.waiting else (state, ())


def _announced(state: State, event: Announced, now: float) -> Step:
    there = max(event.until - RESERVE - now, 0.0)
    parting = Parting(event, now + min(event.countdown, there / SHARE))
    known = replace(state, waiting=(*state.waiting, parting))
    if state.stage is Stage.LEAVING:  # what asks, still asks
        return known, (Show(_what_is_going_on(known)), Wake(known.objects_at))
    return _count(replace(known, stage=Stage.COUNTDOWN, asking=()), now)


def _going(state: State, event: Event, now: float) -> Step:
    match event:
        case Choice.CANCEL:
            return _object(state, sentences.declined())
        case Stayed():
            return _object(state, sentences.called_off())
        case Choice.GO_ON if state.stage is Stage.COUNTDOWN:
            return _leave(state)
        case Unable():
            return _settle(state), (Act.RELEASE,)
        case Obstructed(asking) if not asking and state.asking:
            return _leave(replace(state, asking=()))
        case Obstructed(asking):
            known = replace(state, asking=asking)
            return known, (Show(_what_is_going_on(known)),)
        case Tick() if state.stage is Stage.COUNTDOWN:
            return _count(state, now)
        case Tick() if now >= state.objects_at:
            return _object(state, sentences.unanswered(state.asking))
    return state, ()


def _count(state: State, now: float) -> Step:
    """Show how long there is still, and come back when that has changed enough to be shown; then leave."""
    left = state.leaves_at - now
    if left <= 0:
        return _leave(state)
    asked = [one.asked for one in state.waiting]
    programs = tuple(dict.fromkeys(program for one in asked for program in one.programs))
    notice = sentences.countdown([(one.card, one.vm) for one in asked], programs, max(one.more for one in asked), left)
    return state, (Show(notice), Wake(now + sentences.next_change(left)))


def _leave(state: State) -> Step:
    leaving = replace(state, stage=Stage.LEAVING)
    return leaving, (Show(_what_is_going_on(leaving)), Act.LEAVE, Wake(leaving.objects_at))


def _what_is_going_on(state: State) -> sentences.Notice:
    if state.asking:
        return sentences.obstructed(state.asking)
    return sentences.leaving([(one.asked.card, one.asked.vm) for one in state.waiting])


def _object(state: State, why: str) -> Step:
    objections = tuple(Object(one.asked.job, why) for one in state.waiting)
    return _settle(state, why), (*objections, *_stay(state))


def _settle(state: State, objection: str = "") -> State:
    """Return that nothing waits for us any more."""
    now = tuple(replace(one, objection=objection) for one in state.waiting)
    return State(Stage.OVER, settled=(*state.settled, *now))


def _stay(state: State) -> tuple[Act, ...]:
    """A desktop that we have asked to end would end later, on its own: programs that still ask would lose their answer."""
    return (Act.STAY,) if state.stage is Stage.LEAVING else ()


def _removed(state: State, job: str, result: str, now: float) -> Step:
    """Nobody ends a desktop for what is over, unless it is wanted for something else as well."""
    ended = tuple(one for one in state.waiting if one.asked.job == job)
    if not ended:
        return state, ()
    left = tuple(one for one in state.waiting if one not in ended)
    if not left:
        return _settle(state), _stay(state) if result != "done" else ()
    known = replace(state, waiting=left, settled=(*state.settled, *ended))
    if known.stage is Stage.COUNTDOWN:
        return _count(known, now)
    return known, (Show(_what_is_going_on(known)), Wake(known.objects_at))


def _finished(state: State, event: Finished) -> Step:
    """Say how it went, unless the person is still asked about another one, in the same place."""
    ended = next((one for one in (*state.settled, *state.waiting) if one.asked.job == event.job), None)
    if ended is None:
        return state, ()
    settled = tuple(one for one in state.settled if one is not ended)
    waiting = tuple(one for one in state.waiting if one is not ended)
    left = replace(state, waiting=waiting, settled=settled) if waiting or settled else State()
    if waiting:
        return left, ()
    ours = ended.objection and event.result == "cancelled"
    message = sentences.refused(ended.objection) if ours else event.message
    return left, (Show(sentences.finished(ended.asked.card, ended.asked.vm, event.result, message)),)
