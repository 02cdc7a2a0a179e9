"""A guest that is started with the machine: what shows the desktop, or has the card open, still waits for its start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import before, hang, reject
from gpuhandoff.simulation.scenarios import single_nvidia
from gpuhandoff.simulation.standin import UNKNOWN_OBJECT
from gpuhandoff.simulation.systemd import MANAGER, ROOT_PATH
from tests.support.hypervisor_events import ALLOWED, ended, event, refused, state
from tests.support.product import Product
from tests.support.step_cases import stop_display
from tests.support.steps import StepBench

DISPLAY_MANAGER = "sddm.service"
SERVICE = "nvidia-persistenced.service"


async def queued(one: Product, *units: str) -> asyncio.Event:
    """Have these units wait for their start until the event."""
    client = one.broker.connect(uid=0)
    over = asyncio.Event()
    for unit in units:
        await client.call("org.freedesktop.systemd1", ROOT_PATH, MANAGER, "StopUnit", "ss", (unit, "replace"))
    await asyncio.sleep(30)
    for unit in units:
        one.machine.faults.set(hang(over), kind="job", target=unit, detail="start")
        await client.call("org.freedesktop.systemd1", ROOT_PATH, MANAGER, "StartUnit", "ss", (unit, "replace"))
    await asyncio.sleep(1)
    return over


def states(one: Product) -> list[str]:
    units = one.machine.units.units
    return [units[name].active_state for name in (DISPLAY_MANAGER, SERVICE)]


async def product(directory: Path, configuration: Configuration = ALLOWED) -> Product:
    return await Product(await single_nvidia(), directory / "run", configuration).start()


@in_virtual_time
async def test_neither_the_desktop_nor_a_service_starts_into_the_move_and_both_are_there_afterwards(tmp_path: Path) -> None:
    one = await product(tmp_path)
    over = await queued(one, DISPLAY_MANAGER, SERVICE)
    assert states(one) == ["inactive", "inactive"]
    await event(one, "prepare")
    over.set()  # what they waited for is there
    await asyncio.sleep(60)
    assert await state(one) == "detached"
    assert states(one) == ["inactive", "inactive"]
    await ended(one)
    await asyncio.sleep(60)
    assert await state(one) == "host"
    assert states(one) == ["active", "active"]
    await one.stop()


@in_virtual_time
async def test_without_consent_the_desktop_comes(tmp_path: Path) -> None:
    one = await product(tmp_path, Configuration())
    over = await queued(one, DISPLAY_MANAGER)
    assert "the login screen goes" in await refused(one)
    over.set()
    await asyncio.sleep(60)
    assert states(one) == ["active", "active"]
    await one.stop()


@in_virtual_time
async def test_a_daemon_that_is_killed_before_it_has_called_the_start_off_leaves_it(tmp_path: Path) -> None:
    one = await product(tmp_path)
    over = await queued(one, DISPLAY_MANAGER)
    one.machine.faults.set(before(one.kill), kind="call", target="StopUnit")
    with pytest.raises(RemoteError):
        await event(one, "prepare")
    asyncio.get_running_loop().call_later(10, over.set)
    await one.start_daemon()
    await asyncio.sleep(60)
    assert await state(one) == "host"
    assert states(one) == ["active", "active"]
    await one.stop()


@in_virtual_time
async def test_a_start_that_ends_while_it_is_looked_at_is_looked_at_again() -> None:
    bench = await StepBench.of(await single_nvidia())
    over = asyncio.Event()
    await bench.host.units.stop(DISPLAY_MANAGER)
    bench.machine.faults.set(hang(over), kind="job", target=DISPLAY_MANAGER, detail="start")
    start = asyncio.create_task(bench.host.units.start(DISPLAY_MANAGER))
    await asyncio.sleep(1)
    waiting = await bench.host.units.unit(DISPLAY_MANAGER)
    assert waiting is not None
    assert (waiting.active_state, waiting.job, waiting.is_active) == ("inactive", "start", True)
    bench.machine.faults.set(reject(RemoteError(UNKNOWN_OBJECT, "Unknown object.")), detail="JobType")
    bench.machine.faults.set(before(over.set), kind="call", target="GetAll", nth=2)
    found = await bench.host.units.unit(DISPLAY_MANAGER)
    assert found is not None
    assert found.is_active
    await start
    begun = await bench.capture("stop-display", stop_display(bench.machine))
    assert begun.saved["active"] is True


@in_virtual_time
async def test_what_runs_already_and_what_stops_is_told_apart() -> None:
    bench = await StepBench.of(await single_nvidia())
    bench.machine.faults.set(hang(), kind="job", target=DISPLAY_MANAGER, detail="stop")
    stop = asyncio.create_task(bench.host.units.stop(DISPLAY_MANAGER))
    await asyncio.sleep(1)
    unit = await bench.host.units.unit(DISPLAY_MANAGER)
    assert unit is not None
    assert (unit.active_state, unit.job, unit.is_stopping) == ("active", "stop", True)
    stop.cancel()
