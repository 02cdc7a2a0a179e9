"""The runner: order, rollback, cancellation, and what the kernel has not finished."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gpuhandoff.errors import (
    CancelledJobError,
    InUseError,
    ProblemError,
    RolledBackError,
    StuckError,
    TimedOutError,
)
from gpuhandoff.host import Host, OpenNode, OverdueError, Pending, Purpose
from gpuhandoff.model.plan import Json
from gpuhandoff.model.request import Operation
from gpuhandoff.model.world import Process
from gpuhandoff.transaction.runner import CARD as CARD_LANE
from tests.support.runner_bench import CARD, NAMES, Bench


async def test_a_handoff_applies_in_order_and_stays_open(bench: Bench) -> None:
    await bench.run()
    assert [call for call in bench.calls if call.startswith("apply")] == [f"apply {name}" for name in NAMES]
    record = bench.journals.record(CARD)
    assert record is not None
    assert record.complete
    assert bench.effects == set(NAMES)
    assert bench.seen[0] == ("inhibit", "apply", 1, 5)
    assert bench.seen[-1] == ("confine", "done", 5, 5)


async def test_reclaim_undoes_in_reverse_and_forgets(bench: Bench) -> None:
    await bench.run()
    await bench.undo()
    assert bench.undone() == NAMES[::-1]
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_another_plan_leaves_no_journal(bench: Bench) -> None:
    await bench.run(Operation.RECLAIM)
    assert bench.journals.addresses() == []


@pytest.mark.parametrize("moment", ["capture", "apply"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(16, "busy"), RolledBackError),
        (InUseError("Held by x."), InUseError),
        (RuntimeError("bug"), RolledBackError),
    ],
)
async def test_whatever_fails_everything_is_undone(
    bench: Bench, moment: str, name: str, error: BaseException, expected: type[ProblemError]
) -> None:
    bench.steps[name].trouble[moment] = lambda: error
    with pytest.raises(expected, match="put back as it was"):
        await bench.run()
    begun = NAMES[: NAMES.index(name) + (moment == "apply")]
    assert bench.undone() == begun[::-1]
    assert bench.effects == set()
    assert bench.journals.addresses() == []


@pytest.mark.parametrize("name", NAMES)
async def test_cancelled_in_any_step(bench: Bench, name: str) -> None:
    task = asyncio.create_task(bench.run())

    def cancel() -> None:
        task.cancel()

    bench.steps[name].trouble["apply"] = cancel
    original = bench.steps[name]._meet

    async def meet(moment: str) -> None:
        await original(moment)
        await asyncio.sleep(0)

    bench.steps[name]._meet = meet  # type: ignore[method-assign]
    with pytest.raises(CancelledJobError):
        await task
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_out_of_time(bench: Bench) -> None:
    async def never(host: Host, arguments: Json, saved: Json) -> None:
        await asyncio.Event().wait()

    bench.steps["bind"].apply = never  # type: ignore[method-assign]
    with pytest.raises(TimedOutError, match=r"0\.05 s"):
        await bench.run(timeout=0.05)
    assert bench.effects == set()


UNBIND = "unbind of 0000:01:00.1"


def hang(bench: Bench, lane: str, operation: str = UNBIND) -> Callable[[], OverdueError]:
    """Return what makes an operation hang in the kernel."""

    def overdue() -> OverdueError:
        bench.fake.hanging = [Pending(Purpose(str(CARD), lane), operation, 5, 77, "D", "snd_card_free")]
        return OverdueError(operation, 5, 77, "D", "snd_card_free")

    return overdue


async def test_an_operation_that_hangs_on_the_gpu_leaves_the_gpu_alone(bench: Bench) -> None:
    bench.steps["claim"].trouble["apply"] = hang(bench, CARD_LANE)
    bench.fake.open = (OpenNode(Process(431, 9, "arecord", 1000), ("/dev/snd/controlC1",)),)
    with pytest.raises(StuckError, match="snd_card_free") as caught:
        await bench.run()
    assert "stuck at claim" in caught.value.message
    assert "arecord (pid 431) has /dev/snd/controlC1 open" in caught.value.message
    assert "switching the power off" in caught.value.message
    assert bench.undone() == ["inhibit"]
    record = bench.journals.record(CARD)
    assert record is not None
    assert record.stuck == caught.value.message
    bench.steps["claim"].trouble.clear()
    with pytest.raises(StuckError):
        await bench.undo()
    assert bench.undone() == ["inhibit"]
    bench.fake.hanging = []
    await bench.undo()
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_an_operation_that_was_overdue_and_has_ended_meanwhile_is_rolled_back(bench: Bench) -> None:
    bench.steps["claim"].trouble["apply"] = lambda: OverdueError(UNBIND, 5, 77)
    with pytest.raises(TimedOutError, match="put back as it was"):
        await bench.run()
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_an_operation_that_hangs_elsewhere_is_an_ordinary_failure(bench: Bench) -> None:
    bench.steps["confine"].trouble["apply"] = hang(bench, "free-memory", "sync")
    with pytest.raises(TimedOutError):
        await bench.run()
    assert bench.effects == set()


@pytest.mark.parametrize("name", NAMES)
async def test_what_cannot_be_undone_is_named_and_tried_again(bench: Bench, name: str) -> None:
    await bench.run()
    bench.steps[name].trouble["undo"] = lambda: InUseError("x (pid 9) has it open.")
    with pytest.raises(StuckError, match=rf"{name}: x \(pid 9\) has it open"):
        await bench.undo()
    assert name in bench.effects
    assert "confine" not in bench.effects or name == "confine"
    assert "inhibit" not in bench.effects or name == "inhibit"
    bench.steps[name].trouble.clear()
    await bench.undo()
    assert bench.effects == set()
    assert bench.journals.addresses() == []


@pytest.mark.parametrize("name", NAMES)
async def test_an_undo_that_is_refused_for_a_moment_is_tried_once_more(bench: Bench, name: str) -> None:
    await bench.run()
    refusals: list[BaseException | None] = [OSError(16, "busy")]
    bench.steps[name].trouble["undo"] = lambda: refusals.pop() if refusals else None
    await bench.undo()
    assert [undone for undone in bench.undone() if undone == name] == [name, name]
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_an_undo_that_hangs_is_not_tried_again(bench: Bench) -> None:
    await bench.run()
    bench.steps["bind"].trouble["undo"] = hang(bench, CARD_LANE)
    with pytest.raises(StuckError):
        await bench.undo()
    assert bench.undone().count("bind") == 1
