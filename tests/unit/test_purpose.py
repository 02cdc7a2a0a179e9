"""What an operation is for, and what a worker is called by that."""

from __future__ import annotations

import pytest

from gpuhandoff.host import Purpose
from gpuhandoff.steps import STEPS
from gpuhandoff.transaction.runner import CARD, lane

KEPT = 15
"""Letters that the kernel keeps of a process's name (TASK_COMM_LEN)."""
GPU = "0000:0a:1f.7"


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_is_known_by_its_name(step: str) -> None:
    purpose = Purpose(GPU, lane(STEPS[step]))
    assert len(purpose.name) <= KEPT
    assert Purpose.parse(purpose.name) == purpose


def test_each_step_that_leaves_the_card_alone_has_a_lane_of_its_own() -> None:
    lanes = [lane(step) for step in STEPS.values() if not step.needs_gpu]
    assert len(set(lanes)) == len(lanes)
    assert CARD not in lanes
    assert {lane(step) for step in STEPS.values() if step.needs_gpu} == {CARD}


@pytest.mark.parametrize(
    "name", ["", "gpuhandoffd", "0000:0a:1f", "0000:0a:1f.8", "0000:0a:1f.7abcd", "0000:0a:1f.7 c", "x0000:0a:1f.7"]
)
def test_who_is_called_otherwise_is_no_worker(name: str) -> None:
    assert Purpose.parse(name) is None


def test_a_lane_waits_for_itself_and_for_what_is_about_all_of_the_card() -> None:
    assert Purpose(GPU, CARD).waits_for(Purpose(GPU, CARD))
    assert Purpose(GPU, CARD).waits_for(Purpose(GPU))
    assert Purpose(GPU).waits_for(Purpose(GPU, "fm"))
    assert not Purpose(GPU, CARD).waits_for(Purpose(GPU, "fm"))
    assert not Purpose(GPU, CARD).waits_for(Purpose("0000:01:00.0", CARD))
    assert not Purpose().waits_for(Purpose())
