"""A move as a line: bounded, printable, and read back or refused whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.history.course import MOST, Course
from gpuhandoff.history.line import LONGEST, read, write
from gpuhandoff.history.move import Move, Taken
from gpuhandoff.model.address import PciAddress

CARD = PciAddress(0, 1, 0, 0)
GOOD: dict[str, Any] = {
    "history": 1, "boot": "b", "job": 7, "began": 5, "gpu": str(CARD), "name": "a card", "operation": "handoff",
    "why": "asked", "vm": "", "uid": 1000, "outcome": "done", "seconds": 1.5, "message": "",
    "steps": [["bind-vfio", "done", 1]],
}  # fmt: skip


def parsed(**other: Any) -> Move | None:
    return read(json.dumps(GOOD | other).encode())


def test_a_good_line() -> None:
    assert parsed() == Move(
        "b", 7, 5, CARD, "a card", "handoff", "asked", "", 1000, "done", 1.5, (Taken("bind-vfio", "done", 1.0),)
    )
    assert parsed(later="something new") == parsed()


@pytest.mark.parametrize("key", sorted(GOOD))
@pytest.mark.parametrize("value", [None, True, -1, 1 << 70, 1.5e300, float("nan"), [[]], ["x"], {"a": 1}])
def test_a_value_that_cannot_be_is_no_line(key: str, value: Any) -> None:
    if (key, value) != ("history", True):  # JSON's true is Python's 1
        assert parsed(**{key: value}) is None


@pytest.mark.parametrize("key", sorted(GOOD.keys() - {"outcome"}))
def test_a_key_that_is_missing_is_no_line(key: str) -> None:
    assert read(json.dumps({name: value for name, value in GOOD.items() if name != key}).encode()) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{", b"\xff\xfe", b"[" * 5000, b'{"history":2}', b"9" * 5000])
def test_what_is_no_line_at_all(data: bytes) -> None:
    assert read(data) is None


def test_a_line_that_is_too_long_is_not_even_parsed() -> None:
    assert read(json.dumps(GOOD | {"message": "m" * 1000}).encode()) is not None
    assert read(json.dumps(GOOD).encode() + b" " * LONGEST) is None


texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=3000)


@given(texts, texts, texts, st.lists(st.tuples(texts, st.sampled_from(["done", "undo"]), st.floats(0, 1e6)), max_size=100))
def test_whatever_happened_a_line_is_short_printable_and_means_what_it_says(
    name: str, vm: str, message: str, steps: list[tuple[str, str, float]]
) -> None:
    taken = tuple(Taken(*step) for step in steps)
    move = Move("b", 7, 5, CARD, name, "handoff", "asked", vm, 1000, "failed", 1.0, taken, message)
    line = write(move)
    assert len(line) <= LONGEST
    assert line.count(b"\n") == 1
    assert line.decode()[:-1].isprintable()
    found = read(line)
    assert found is not None
    assert (found.key, found.outcome, write(found)) == (move.key, "failed", line)


def test_steps_that_would_make_it_too_long_are_left_out() -> None:
    steps = tuple(Taken("ä" * 48, "done", 1.0) for _ in range(64))
    move = Move("b", 7, 5, CARD, "😀" * 900, "handoff", "asked", "😀" * 900, 1000, "failed", 1.0, steps, "😀" * 9000)
    assert len(write(move)) <= LONGEST
    found = read(write(move))
    assert found is not None
    assert (found.steps, found.message) == ((), "😀" * 1000)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.sampled_from(sorted(GOOD)), one),
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    assert isinstance(read(json.dumps(value).encode()), Move | None)


def test_a_course_tells_steps_there_and_back_and_the_one_that_failed() -> None:
    course = Course()
    course.begun = 10.0
    for step, phase, now in (
        ("a", "apply", 10.0), ("a", "done", 11.0), ("b", "apply", 11.0), ("b", "undo", 13.5), ("b", "undone", 14.0),
        ("a", "undo", 14.0),
    ):  # fmt: skip
        course.note(step, phase, now)
    assert course.steps(20.0) == (
        Taken("a", "done", 1.0), Taken("b", "apply", 2.5), Taken("b", "undone", 0.5), Taken("a", "undo", 6.0),
    )  # fmt: skip
    assert course.seconds(20.0) == 10.0
    assert Course().seconds(20.0) == 0.0


def test_a_course_without_end_remembers_the_latest() -> None:
    course = Course()
    for number in range(3 * MOST):
        course.note(str(number), "undone", 0.0)
    assert [one.step for one in course.steps(0.0)] == [str(number) for number in range(2 * MOST, 3 * MOST)]
