"""The verdict in the whole product: guests are counted, losses remembered, the second run of a doubtful card refused."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import refuse
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import blackwell, igpu_dgpu, single_amd, single_nvidia
from tests.support.product import Product

GPU = "0000:01:00.0"
ACCEPT = {"accept-risk": Variant("b", True)}
NOTHING: dict[str, Variant] = {}


async def started(directory: Path, machine: SimulatedMachine) -> Product:
    """Return a product that keeps its history."""
    return await Product(machine, directory / "run", state_directory=directory / "state").start()


async def be_used(product: Product, guests: int = 1) -> None:
    """Have guests use the card that is lent, one after the other."""
    for _ in range(guests):
        product.machine.start_guest(GPU)
        await asyncio.sleep(1)
        product.machine.stop_guest(GPU)
        await asyncio.sleep(1)


async def round_trip(product: Product, guests: int = 1, options: dict[str, Variant] = NOTHING) -> None:
    """Lend the card, have it used, take it back."""
    await product.handoff(GPU, **options)
    await be_used(product, guests)
    await product.reclaim(GPU)


async def verdict(product: Product) -> tuple[str, str, bool, int]:
    """Return verdict, source, risk and guests."""
    status = await product.status(GPU)
    return (status["reset-verdict"], status["reset-source"], status["reset-risk"], status["guests"])


@in_virtual_time
async def test_the_second_run_of_a_once_per_boot_card_needs_the_consent(tmp_path: Path) -> None:
    product = await started(tmp_path, await blackwell())
    assert await verdict(product) == (
        "once per boot", "guiahardware.es; forum.proxmox.com 178461", False, 0,
    )  # fmt: skip
    await round_trip(product)
    assert (await verdict(product))[2:] == (True, 1)
    before = product.machine.snapshot()
    with pytest.raises(RemoteError) as caught:
        await product.handoff(GPU)
    assert caught.value.name.endswith(".NeedsConsent")
    assert "has been with a guest since the machine was booted" in caught.value.message
    assert product.machine.snapshot() == before
    await round_trip(product, options=ACCEPT)
    assert await verdict(product) == ("safe", "this machine", False, 2)
    await product.handoff(GPU)
    await product.stop()


@in_virtual_time
async def test_guests_are_counted_and_not_handoffs_also_across_a_restart_of_the_daemon(tmp_path: Path) -> None:
    product = await started(tmp_path, await blackwell())
    await round_trip(product, guests=0)
    assert (await verdict(product))[3] == 0
    await product.handoff(GPU)
    product.machine.start_guest(GPU)
    await asyncio.sleep(1)
    product.kill()
    await product.start_daemon()
    await asyncio.sleep(1)
    assert (await verdict(product))[3] == 1
    product.machine.stop_guest(GPU)
    await asyncio.sleep(1)
    product.machine.start_guest(GPU)
    await asyncio.sleep(1)
    assert (await verdict(product))[2:] == (True, 2)
    await product.stop()


@in_virtual_time
async def test_a_reboot_ends_the_count(tmp_path: Path) -> None:
    product = await started(tmp_path, await blackwell())
    await round_trip(product)
    await product.reboot(blackwell)
    assert (await verdict(product))[2:] == (False, 0)
    await round_trip(product)
    await product.stop()


@in_virtual_time
async def test_a_card_that_is_lost_is_remembered_after_the_reboot(tmp_path: Path) -> None:
    product = await started(tmp_path, await single_nvidia())
    assert (await verdict(product))[0] == "safe"
    await product.handoff(GPU)
    await be_used(product)
    product.machine.faults.set(refuse(errno.EIO), kind="load-module", nth=0)
    with pytest.raises(RemoteError) as caught:
        await product.reclaim(GPU)
    assert caught.value.name.endswith(".Stuck")
    await product.reboot(single_nvidia)
    kind, source, risk, _ = await verdict(product)
    assert (kind, source, risk) == ("broken", "this machine", True)
    with pytest.raises(RemoteError, match="did not come back after a guest"):
        await product.handoff(GPU)
    await round_trip(product, options=ACCEPT)
    assert (await verdict(product))[:2] == ("safe", "guiahardware.es")
    await product.stop()


@in_virtual_time
async def test_where_the_desktop_does_not_need_the_card_it_says_so(tmp_path: Path) -> None:
    product = await started(tmp_path, await igpu_dgpu())
    assert (await product.status(GPU))["needed"] is False
    assert (await product.status("0000:00:02.0"))["needed"] is True
    await product.stop()


@in_virtual_time
async def test_a_kernel_that_hangs_in_amdgpu_is_refused_before_the_screen_goes_dark(tmp_path: Path) -> None:
    product = await started(tmp_path, await single_amd(kernel="6.12.70+deb13-amd64"))
    before = product.machine.snapshot()
    with pytest.raises(RemoteError, match="amdgpu hangs when it is unloaded"):
        await product.handoff(GPU)
    assert product.machine.snapshot() == before
    await product.stop()


@in_virtual_time
async def test_history_says_how_many_guests_had_it(tmp_path: Path) -> None:
    product = await started(tmp_path, await single_nvidia())
    await round_trip(product, guests=2)
    moves: list[dict[str, Any]] = await product.call("History", "su", GPU, 0)
    assert [(move["operation"].value, move["guests"].value) for move in moves] == [("reclaim", 0), ("handoff", 2)]
    await product.stop()
