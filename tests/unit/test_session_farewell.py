"""How a desktop takes its leave: every way through it, without a bus."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
from gpuhandoff_session.farewell import RESERVE, Stage, State, step

JOB, OTHER = "/org/gpuhandoff/jobs/7", "/org/gpuhandoff/jobs/8"
ASKED = Announced(JOB, "RTX 4070", "win11", ("Firefox", "Kate"), 0, until=60.0, countdown=15.0)


def play(*events: tuple[float, Event]) -> tuple[State, list[Effect]]:
    """Return the state after events at their times, and everything that was done."""
    state = State()
    done: list[Effect] = []
    for now, event in events:
        state, effects = step(state, event, now)
        done += effects
    return state, done


def acts(done: list[Effect]) -> list[Effect]:
    """Return what was done, but for what was shown and when to wake up."""
    return [one for one in done if not isinstance(one, Show | Wake)]


def shown(done: list[Effect]) -> list[str]:
    return [one.notice.title for one in done if isinstance(one, Show)]


def test_first_a_countdown_that_says_what_ends() -> None:
    state, done = play((0.0, ASKED))
    assert state.stage is Stage.COUNTDOWN
    (show, wake) = done
    assert isinstance(show, Show)
    assert show.notice.title == "Your desktop ends in 15 seconds"
    assert show.notice.body.startswith("RTX 4070 goes to win11, and it shows this desktop. What ends: Firefox and Kate.")
    assert [key for key, _ in show.notice.buttons] == ["cancel", "go-on"]
    assert wake == Wake(5.0)


def test_the_countdown_is_shown_in_fives_and_then_one_by_one() -> None:
    now, titles = 0.0, []
    state, effects = step(State(), ASKED, now)
    while state.stage is Stage.COUNTDOWN:
        titles += shown(list(effects))
        now = next(one.at for one in effects if isinstance(one, Wake))
        state, effects = step(state, Tick(), now)
    assert [title.split()[4] for title in titles] == ["15", "10", "5", "4", "3", "2", "1"]
    assert titles[-1] == "Your desktop ends in 1 second"
    assert now == pytest.approx(15.0)
    assert acts(list(effects)) == [Act.LEAVE]


@pytest.mark.parametrize(("until", "countdown", "leaves"), [(60, 15, 15), (20, 15, 5), (8, 15, 1), (60, 0, 0), (3, 15, 0)])
def test_the_countdown_leaves_programs_time_to_close(until: float, countdown: float, leaves: float) -> None:
    state, done = play((0.0, Announced(JOB, "card", "", (), 0, until, countdown)))
    assert state.leaves_at == leaves
    assert acts(done) == ([] if leaves else [Act.LEAVE])


def test_cancel_in_the_countdown_objects_and_nothing_was_asked_to_end() -> None:
    state, done = play((0.0, ASKED), (3.0, Choice.CANCEL), (15.0, Tick()))
    assert state.stage is Stage.OVER
    assert acts(done) == [Object(JOB, "it was cancelled in the countdown")]
    _, (show,) = step(state, Finished(JOB, "cancelled", "alice, whose desktop would have ended, objects."), 16.0)
    assert isinstance(show, Show)
    assert show.notice.title == "RTX 4070 stays here"
    assert show.notice.body == "The handoff was refused: it was cancelled in the countdown. Nothing was changed."


def test_who_does_not_want_to_wait_goes_at_once() -> None:
    state, done = play((0.0, ASKED), (3.0, Choice.GO_ON), (4.0, Choice.GO_ON), (15.0, Tick()))
    assert state.stage is Stage.LEAVING
    assert acts(done) == [Act.LEAVE]


def test_cancel_while_programs_close_has_the_desktop_stay() -> None:
    _, done = play((0.0, ASKED), (15.0, Tick()), (20.0, Choice.CANCEL))
    assert acts(done) == [Act.LEAVE, Object(JOB, "it was cancelled in the countdown"), Act.STAY]


def test_unsaved_changes_that_nobody_answers_for_are_not_lost() -> None:
    """Before the daemon would go on without us, and before Plasma would log out in spite of them."""
    state, done = play((0.0, ASKED), (15.0, Tick()), (54.9, Tick()))
    assert acts(done) == [Act.LEAVE]
    wakes = [one.at for one in done if isinstance(one, Wake)]
    assert wakes[-1] == 60.0 - RESERVE
    state, done = play((0.0, ASKED), (15.0, Tick()), (wakes[-1], Tick()))
    assert acts(done) == [Act.LEAVE, Object(JOB, sentences.unanswered(())), Act.STAY]
    assert state.stage is Stage.OVER


def test_a_program_that_objects_is_named_and_waited_for() -> None:
    asking = ("TextEditor: unsaved changes",)
    state, done = play((0.0, ASKED), (15.0, Tick()), (15.1, Obstructed(asking)))
    assert acts(done) == [Act.LEAVE]
    assert shown(done)[-1] == "Something keeps your desktop from ending"
    _, effects = step(state, Obstructed(()), 30.0)
    assert acts(list(effects)) == [Act.LEAVE]
    _, effects = step(state, Tick(), 55.0)
    assert acts(list(effects)) == [Object(JOB, "TextEditor: unsaved changes, and nobody has answered"), Act.STAY]


def test_who_tells_the_desktop_to_stay_refuses() -> None:
    state, done = play((0.0, ASKED), (15.0, Tick()), (26.0, Stayed()))
    assert acts(done) == [Act.LEAVE, Object(JOB, "the desktop was told to stay"), Act.STAY]
    assert state.stage is Stage.OVER


def test_a_desktop_that_cannot_be_asked_ends_as_without_us() -> None:
    state, done = play((0.0, ASKED), (15.0, Tick()), (15.1, Unable()), (55.0, Tick()))
    assert acts(done) == [Act.LEAVE, Act.RELEASE]
    assert state.stage is Stage.OVER


def test_how_it_went_is_told_where_the_desktop_is_still_there() -> None:
    state, done = play((0.0, ASKED), (3.0, Finished(OTHER, "done", "")), (4.0, Finished(JOB, "rolled-back", "It hung.")))
    assert state == State()
    assert shown(done)[-1] == "win11 did not get RTX 4070"
    assert step(state, Tick(), 15.0) == (State(), ())


@pytest.mark.parametrize(("result", "expected"), [("cancelled", [Act.LEAVE, Act.STAY]), ("done", [Act.LEAVE])])
def test_a_handoff_that_somebody_else_cancels_ends_no_desktop(result: str, expected: list[Effect]) -> None:
    state, done = play((0.0, ASKED), (15.0, Tick()), (16.0, Removed(OTHER, "done")), (17.0, Removed(JOB, result)))
    assert state.stage is Stage.OVER
    assert acts(done) == expected
    assert acts(list(step(state, Finished(JOB, result, ""), 18.0)[1])) == []


def test_the_countdown_ends_with_the_handoff_and_not_with_what_there_is_to_tell() -> None:
    _, done = play(
        (0.0, ASKED), (14.0, Removed(JOB, "cancelled")), (15.0, Tick()), (16.0, Finished(JOB, "cancelled", "Gone."))
    )
    assert acts(done) == []
    assert shown(done)[-1] == "RTX 4070 stays here"


def test_a_daemon_that_goes_away_takes_the_handoff_along() -> None:
    assert play((0.0, ASKED), (3.0, Deserted())) == (State(), [*play((0.0, ASKED))[1], Act.WITHDRAW])
    _, done = play((0.0, ASKED), (15.0, Tick()), (16.0, Deserted()))
    assert acts(done) == [Act.LEAVE, Act.STAY, Act.WITHDRAW]


@pytest.mark.parametrize("event", [Tick(), Choice.CANCEL, Choice.GO_ON, Stayed(), Unable(), Obstructed(("x",)), Deserted()])
def test_nothing_comes_of_what_happens_while_nothing_is_under_way(event: Event) -> None:
    assert step(State(), event, 1.0) == (State(), ())
    over, _ = play((0.0, ASKED), (3.0, Choice.CANCEL))
    if event != Deserted():
        assert step(over, event, 60.0) == (over, ())


SECOND = Announced(OTHER, "RTX 3060", "win11", ("Firefox", "Blender"), 0, until=63.0, countdown=15.0)


def test_a_desktop_that_is_wanted_for_two_cards_has_one_countdown_for_both() -> None:
    state, done = play((0.0, ASKED), (3.0, SECOND))
    assert state.stage is Stage.COUNTDOWN
    show, wake = done[-2:]
    assert isinstance(show, Show)
    assert show.notice.title == "Your desktop ends in 12 seconds"
    assert show.notice.body.startswith(
        "RTX 4070 and RTX 3060 go to win11, and they show this desktop. What ends: Firefox, Kate and Blender."
    )
    assert wake == Wake(5.0)
    state, done = play((0.0, ASKED), (3.0, SECOND), (15.0, Tick()))
    assert acts(done) == [Act.LEAVE]
    assert Wake(60.0 - RESERVE) in done


def test_one_no_is_for_both() -> None:
    why = "it was cancelled in the countdown"
    _, done = play((0.0, ASKED), (3.0, SECOND), (4.0, Choice.CANCEL))
    assert acts(done) == [Object(JOB, why), Object(OTHER, why)]
    state, done = play((0.0, ASKED), (15.0, Tick()), (16.0, SECOND), (17.0, Choice.CANCEL))
    assert acts(done) == [Act.LEAVE, Object(JOB, why), Object(OTHER, why), Act.STAY]
    ends: list[tuple[float, Event]] = [(18.0, Removed(OTHER, "cancelled")), (18.0, Removed(JOB, "cancelled"))]
    _, done = play((0.0, ASKED), (3.0, SECOND), (4.0, Choice.CANCEL), *ends, (19.0, Finished(JOB, "cancelled", "No.")))
    assert shown(done)[-1] == "RTX 4070 stays here"
    _, (show,) = step(state, Finished(OTHER, "cancelled", "No."), 19.0)
    assert isinstance(show, Show)
    assert show.notice.body == f"The handoff was refused: {why}. Nothing was changed."


@pytest.mark.parametrize("joined", [3.0, 16.0])
def test_what_is_over_of_two_leaves_the_other(joined: float) -> None:
    events: list[tuple[float, Event]] = sorted([(0.0, ASKED), (15.0, Tick()), (joined, SECOND)], key=lambda one: one[0])
    over: list[tuple[float, Event]] = [(20.0, Removed(JOB, "cancelled")), (21.0, Finished(JOB, "cancelled", "Gone."))]
    state, done = play(*events, *over)
    assert acts(done) == [Act.LEAVE]
    assert shown(done)[-1] == "Your desktop ends now"
    assert [one for one in done if isinstance(one, Wake)][-1] == Wake(63.0 - RESERVE)
    _, effects = step(state, Choice.CANCEL, 22.0)
    assert acts(list(effects)) == [Object(OTHER, "it was cancelled in the countdown"), Act.STAY]
    state, done = play((0.0, ASKED), (3.0, SECOND), (4.0, Removed(JOB, "cancelled")), (5.0, Tick()))
    assert (state.stage, shown(done)[-1]) == (Stage.COUNTDOWN, "Your desktop ends in 13 seconds")


def test_the_next_one_after_a_no_is_asked_about_again() -> None:
    ended = Finished(JOB, "cancelled", "")
    state, done = play((0.0, ASKED), (3.0, Choice.CANCEL), (4.0, replace(SECOND, until=64.0)), (5.0, ended))
    assert state.stage is Stage.COUNTDOWN
    assert shown(done)[-1] == "Your desktop ends in 15 seconds"


def test_a_no_that_comes_too_late_is_told_as_that() -> None:
    _, done = play((0.0, ASKED), (3.0, Choice.CANCEL), (3.1, TooLate(OTHER)), (3.2, TooLate(JOB)))
    assert shown(done)[-2:] == ["Your desktop ends in 15 seconds", "It could not be cancelled any more"]


@pytest.mark.parametrize(
    ("vms", "expected"),
    [
        (("a", "a"), "X and Y go to a"),
        (("a", "b"), "X goes to a and Y goes to b"),
        (("", ""), "X and Y go to a virtual machine"),
    ],
)
def test_where_cards_go(vms: tuple[str, str], expected: str) -> None:
    assert sentences.leaving(list(zip("XY", vms, strict=True))).body == f"Programs are closed, then {expected}."
