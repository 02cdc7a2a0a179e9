"""Two GPUs on one driver, both of which move: in any order, and at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import before
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, twin
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.steps.load_vfio import FAMILY
from tests.support.product import Product
from tests.support.tidying import unnumbered

BOTH = (GPU, SECOND_GPU)
PAGES = 512
"""Of 2 MiB, for the guest of each."""


def confined(one: Product) -> str:
    """Return the CPUs that the host's services may use."""
    return str(one.machine.snapshot()["units"]["system.slice"]["effective_cpus"])


async def handed_off(directory: Path, order: tuple[str, ...]) -> tuple[Product, dict[str, object]]:
    one = await Product(await twin(), directory).start()
    was = unnumbered(one.machine.snapshot())
    for gpu in order:
        await one.handoff(gpu)
    return one, was


@pytest.mark.parametrize("back", [BOTH, BOTH[::-1]], ids=["first-first", "second-first"])
@pytest.mark.parametrize("there", [BOTH, BOTH[::-1]], ids=["first-first", "second-first"])
@in_virtual_time
async def test_one_after_the_other(tmp_path: Path, there: tuple[str, ...], back: tuple[str, ...]) -> None:
    one, was = await handed_off(tmp_path, there)
    assert one.machine.memory.pages == PAGES * 2
    for gpu in back:
        await one.reclaim(gpu)
        assert one.machine.memory.pages == (PAGES if gpu is back[0] else 0)
        assert confined(one) == ("0-1" if gpu is back[0] else "0-7")
        await asyncio.sleep(10)
        assert (await one.status(gpu))["state"] == "host"
        device = one.machine.pci.at(gpu)
        assert one.machine.graphics.nodes_of(device), "the card shows nothing"
    assert differences(was, unnumbered(one.machine.snapshot())) == []
    await one.stop()


@in_virtual_time
async def test_both_at_once(tmp_path: Path) -> None:
    one, was = await handed_off(tmp_path, ())
    await asyncio.gather(*(one.handoff(gpu) for gpu in BOTH))
    assert [(await one.status(gpu))["state"] for gpu in BOTH] == ["detached", "detached"]
    await asyncio.gather(*(one.reclaim(gpu) for gpu in BOTH))
    await asyncio.sleep(10)
    assert differences(was, unnumbered(one.machine.snapshot())) == []
    await one.stop()


@in_virtual_time
async def test_the_second_comes_while_the_first_is_called_off(tmp_path: Path) -> None:
    one, was = await handed_off(tmp_path, ())
    first = asyncio.create_task(one.handoff(GPU))
    await asyncio.sleep(0.3)
    second = asyncio.create_task(one.handoff(SECOND_GPU))
    await asyncio.sleep(0.01)
    one.jobs.cancel_all()
    await asyncio.gather(first, second, return_exceptions=True)
    await asyncio.sleep(10)
    assert [(await one.status(gpu))["state"] for gpu in BOTH] == ["host", "host"]
    assert differences(was, unnumbered(one.machine.snapshot())) == []
    await one.stop()


@pytest.mark.parametrize("back", [BOTH, BOTH[::-1]], ids=["first-first", "second-first"])
@in_virtual_time
async def test_modules_stay_for_as_long_as_one_of_them_is_away(tmp_path: Path, back: tuple[str, ...]) -> None:
    one, _ = await handed_off(tmp_path, BOTH)
    await one.reclaim(back[0])
    assert {"vfio_pci", "vfio_iommu_type1"} <= set(one.machine.modules.loaded)
    await one.reclaim(back[1])
    assert not set(FAMILY) & set(one.machine.modules.loaded)
    await one.stop()


@pytest.mark.parametrize("operation", range(1, 60, 2))
@in_virtual_time
async def test_the_daemon_is_killed_on_the_second_ones_way(tmp_path: Path, operation: int) -> None:
    """What the second had not got yet is not taken from the first."""
    one, was = await handed_off(tmp_path, (GPU,))
    away = one.machine.snapshot()["memory"]
    one.machine.faults.set(before(one.kill), nth=operation, when=lambda each: each.kind in {"write", "load-module"})
    with contextlib.suppress(RemoteError):
        await one.handoff(SECOND_GPU)
    one.machine.faults.clear()
    if one.daemon is None:
        await one.start_daemon()
        await asyncio.sleep(3)
        if (await one.status(SECOND_GPU))["state"] == "host":
            assert one.machine.snapshot()["memory"] == away
            assert confined(one) == "0-1"
    for gpu in BOTH:
        if (await one.status(gpu))["state"] != "host":
            await one.reclaim(gpu)
            await asyncio.sleep(10)
    assert differences(was, unnumbered(one.machine.snapshot())) == []
    await one.stop()
