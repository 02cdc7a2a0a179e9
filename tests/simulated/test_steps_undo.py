"""What every step promises: undo brings the machine back after an apply that ran fully, partly, or not at all."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from gpuhandoff.errors import ProblemError
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Effect, fail_afterwards, refuse
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.steps import STEPS
from tests.support.step_cases import CASES, StepCase
from tests.support.steps import StepBench

FAULTS: dict[str, Callable[[], Effect]] = {"refused": lambda: refuse(errno.EIO), "done and refused": fail_afterwards}


async def prepared(case: StepCase) -> tuple[StepBench, dict[str, object]]:
    """Return the machine right before the step in question, and what it looked like before all steps."""
    bench = await StepBench.of(await case.machine())
    before = bench.machine.snapshot()
    for name, arguments in case.chain[:-1]:
        await bench.apply(name, arguments(bench.machine))
    return bench, before


def test_every_step_has_a_case() -> None:
    own_tests = {"inhibit-sleep"}
    assert {case.chain[-1][0] for case in CASES.values()} | own_tests == set(STEPS)
    assert all(step.name == name for name, step in STEPS.items())


@in_virtual_time
@pytest.mark.parametrize("title", CASES)
async def test_there_and_back(title: str) -> None:
    case = CASES[title]
    bench, before = await prepared(case)
    name, arguments = case.chain[-1]
    begun = await bench.capture(name, arguments(bench.machine))
    if case.reversible:
        assert not await bench.holds()
    await bench.step(name).apply(bench.host, begun.arguments, begun.saved)
    assert await bench.holds()
    await bench.undo_latest()
    if case.reversible:
        assert not await bench.holds()
    await bench.undo()
    await bench.settle()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
@pytest.mark.parametrize("title", CASES)
async def test_undone_twice(title: str) -> None:
    case = CASES[title]
    bench, before = await prepared(case)
    name, arguments = case.chain[-1]
    await bench.apply(name, arguments(bench.machine))
    await bench.undo_latest()
    once = bench.machine.snapshot()
    await bench.undo_latest()
    assert differences(once, bench.machine.snapshot()) == []
    await bench.undo()
    await bench.settle()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
@pytest.mark.parametrize("title", CASES)
async def test_undone_without_having_been_applied(title: str) -> None:
    case = CASES[title]
    bench, before = await prepared(case)
    name, arguments = case.chain[-1]
    await bench.capture(name, arguments(bench.machine))
    await bench.undo()
    await bench.settle()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
@pytest.mark.parametrize("title", CASES)
async def test_capture_changes_nothing(title: str) -> None:
    case = CASES[title]
    bench, _ = await prepared(case)
    name, arguments = case.chain[-1]
    before = bench.machine.snapshot()
    await bench.capture(name, arguments(bench.machine))
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("title", CASES)
async def test_undone_after_an_apply_that_failed_anywhere(title: str, fault: str) -> None:
    case = CASES[title]
    number, refusals = 1, 0
    while True:
        bench, before = await prepared(case)
        name, arguments = case.chain[-1]
        begun = await bench.capture(name, arguments(bench.machine))
        bench.machine.faults.clear()
        bench.machine.faults.set(FAULTS[fault](), nth=number)
        try:
            await bench.step(name).apply(bench.host, begun.arguments, begun.saved)
        except (ProblemError, OSError, RemoteError):
            refusals += 1
        if len(bench.machine.faults.log) < number:
            break
        bench.machine.faults.clear()
        await bench.undo()
        await bench.settle()
        assert differences(before, bench.machine.snapshot()) == [], f"operation {number}"
        number += 1
    assert number > 1 or name == "settle-holders"
    assert refusals <= number
