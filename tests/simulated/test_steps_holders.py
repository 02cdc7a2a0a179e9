"""The step that waits for whoever else has the GPU open."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from gpuhandoff.errors import InUseError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import igpu_dgpu
from tests.support.step_cases import settle
from tests.support.steps import StepBench

RENDER = "/dev/dri/renderD129"


def now() -> float:
    return asyncio.get_running_loop().time()


# settle-holders


@in_virtual_time
async def test_a_free_gpu_is_not_waited_for() -> None:
    bench = await StepBench.of(await igpu_dgpu())
    began = now()
    await bench.apply("settle-holders", settle(bench.machine))
    assert now() == began


@in_virtual_time
async def test_who_leaves_within_the_grace_is_not_ended() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    holder = machine.processes.spawn("obs", opens=[RENDER])
    asyncio.get_running_loop().call_later(2, machine.processes.close, holder)
    began = now()
    await bench.apply("settle-holders", settle(machine, terminate=True))
    assert 2 <= now() - began < 2.6
    assert holder.pending == set()


@in_virtual_time
async def test_without_consent_nobody_is_signalled_and_everybody_is_named() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    holders = [machine.processes.spawn(name, opens=[RENDER]) for name in ("Xwayland", "ollama")]
    with pytest.raises(InUseError) as caught:
        await bench.apply("settle-holders", settle(machine))
    first, second = (one.pid for one in holders)
    assert caught.value.message == (
        f"The GPU is in use: Xwayland (pid {first}) has {RENDER} open, ollama (pid {second}) has {RENDER} open. "
        "Close it, or allow it to be ended with the option holders=terminate."
    )
    assert all(one.pending == set() for one in holders)


@in_virtual_time
async def test_with_consent_who_stays_is_asked_and_then_killed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    polite = machine.processes.spawn("nvtop", opens=["/dev/nvidia0"])
    stubborn = machine.processes.spawn("ollama", opens=["/dev/nvidia0"], stubborn=True)
    began = now()
    await bench.apply("settle-holders", settle(machine, terminate=True))
    assert 3 + 5 <= now() - began < 3 + 5 + 1
    assert machine.processes.with_path("/dev/nvidia0") == []
    assert polite.pending == {15}
    assert stubborn.pending == {15, 9}
    assert re.search(r"ending .*nvtop \(pid \d+\)", caplog.text)


@in_virtual_time
async def test_who_survives_even_that_is_named() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.processes.spawn("ollama", opens=["/dev/nvidia0"], state="D", unkillable=True)
    with pytest.raises(InUseError, match=r"still in use.*ollama \(pid \d+\) has /dev/nvidia0 open"):
        await bench.apply("settle-holders", settle(machine, terminate=True))


@in_virtual_time
async def test_not_even_with_consent_are_pid_1_and_logind_signalled() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    keepers = [*machine.processes.named("systemd"), *machine.processes.named("systemd-logind")]
    for keeper in keepers:
        machine.processes.open(keeper, RENDER)
    for keeper in keepers:
        asyncio.get_running_loop().call_later(4, machine.processes.close, keeper, RENDER)
    await bench.apply("settle-holders", settle(machine, terminate=True))
    assert [one.pending for one in keepers] == [set(), set()]


@in_virtual_time
async def test_a_deleted_node_still_counts() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    arguments = settle(machine)
    machine.processes.spawn("sleep", opens=[RENDER])
    machine.tree.remove(RENDER)
    with pytest.raises(InUseError, match="sleep"):
        await bench.apply("settle-holders", arguments)
