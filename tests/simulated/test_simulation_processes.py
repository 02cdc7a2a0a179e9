"""Processes: signals, and how they let go."""

import asyncio
import signal
from dataclasses import replace

from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import igpu_dgpu


@in_virtual_time
async def test_term_ends_and_kill_ends_the_stubborn() -> None:
    machine = await igpu_dgpu()
    meek = machine.processes.spawn("meek", opens=["/dev/dri/card1"])
    stubborn = machine.processes.spawn("stubborn", stubborn=True)
    for process in (meek, stubborn):
        assert machine.processes.signal(process.value, signal.SIGTERM)
    assert await machine.processes.ended([meek.value], timeout=1)
    assert not await machine.processes.ended([stubborn.value], timeout=1)
    machine.processes.signal(stubborn.value, signal.SIGKILL)
    assert await machine.processes.ended([stubborn.value], timeout=1)
    assert await machine.processes.holding(["/dev/dri/card1"]) == ()


@in_virtual_time
async def test_nothing_ends_a_process_in_d_state() -> None:
    machine = await igpu_dgpu()
    stuck = machine.processes.spawn("stuck", state="D", unkillable=True)
    machine.processes.signal(stuck.value, signal.SIGKILL)
    assert not await machine.processes.ended([stuck.value], timeout=60)
    assert machine.processes.state(stuck.value) == "D"


@in_virtual_time
async def test_a_stopped_process_gets_its_sigterm_when_it_continues() -> None:
    machine = await igpu_dgpu()
    process = machine.processes.spawn("sleeper")
    machine.processes.signal(process.value, signal.SIGSTOP)
    machine.processes.signal(process.value, signal.SIGTERM)
    assert not await machine.processes.ended([process.value], timeout=1)
    assert machine.processes.state(process.value) == "T"
    machine.processes.signal(process.value, signal.SIGCONT)
    assert await machine.processes.ended([process.value], timeout=1)


@in_virtual_time
async def test_a_pid_with_another_start_time_is_somebody_else() -> None:
    machine = await igpu_dgpu()
    process = machine.processes.spawn("one")
    other = replace(process.value, start_time=1)
    assert machine.processes.state(other) is None
    assert not machine.processes.signal(other, signal.SIGKILL)
    assert await machine.processes.ended([other], timeout=1)


@in_virtual_time
async def test_a_client_ends_with_its_compositor() -> None:
    machine = await igpu_dgpu()
    compositor = machine.processes.spawn("kwin")
    client = machine.processes.spawn("kate", parent=compositor)
    machine.processes.end(compositor.pid)
    await asyncio.sleep(1)
    assert machine.processes.state(client.value) is None
