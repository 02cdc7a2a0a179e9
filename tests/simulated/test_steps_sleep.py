"""The step that keeps the machine awake."""

from __future__ import annotations

import asyncio

import pytest

from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import hang
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, igpu_dgpu
from tests.support.steps import StepBench

WHY = {"gpu": GPU, "why": "a card is lent to win11"}


# inhibit-sleep


@in_virtual_time
async def test_the_inhibitor_is_a_block_with_a_reason_and_goes_with_undo() -> None:
    bench = await StepBench.of(await igpu_dgpu())
    begun = await bench.apply("inhibit-sleep", WHY)
    await bench.step("inhibit-sleep").apply(bench.host, begun.arguments, begun.saved)
    (one,) = bench.machine.logind.inhibitors.values()
    assert (one.what, one.who, one.why, one.mode) == ("sleep:handle-lid-switch", "gpuhandoff", WHY["why"], "block")
    assert await bench.holds()
    await bench.undo_latest()  # another daemon's: has nothing to let go of
    assert await bench.holds()
    for _ in range(2):
        await bench.step("inhibit-sleep").undo(bench.host, begun.arguments, begun.saved)
    await asyncio.sleep(0.1)
    assert not await bench.holds()
    assert bench.machine.logind.inhibitors == {}


@in_virtual_time
async def test_each_gpu_has_its_inhibitor() -> None:
    bench = await StepBench.of(await igpu_dgpu())
    first = await bench.apply("inhibit-sleep", WHY)
    second = await bench.apply("inhibit-sleep", {**WHY, "gpu": SECOND_GPU})
    await bench.step("inhibit-sleep").undo(bench.host, first.arguments, {})
    await asyncio.sleep(0.1)
    assert len(bench.machine.logind.inhibitors) == 1
    await bench.step("inhibit-sleep").undo(bench.host, second.arguments, {})
    await asyncio.sleep(0.1)


@in_virtual_time
async def test_a_machine_without_logind_is_told_of_and_carried_on_with(caplog: pytest.LogCaptureFixture) -> None:
    bench = StepBench(await igpu_dgpu())
    bench.host = bench.new_host()
    await bench.apply("inhibit-sleep", WHY)
    assert "sleep cannot be inhibited" in caplog.text
    assert not await bench.holds()
    await bench.undo()


@in_virtual_time
async def test_an_inhibitor_that_comes_too_late_is_let_go_of() -> None:
    bench = await StepBench.of(await igpu_dgpu())
    answer = asyncio.Event()
    bench.machine.faults.set(hang(answer), target="Inhibit")
    task = asyncio.create_task(bench.apply("inhibit-sleep", WHY))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    answer.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    assert bench.machine.logind.inhibitors == {}
