"""A guest that takes the card through a /dev of its own, as libvirt's QEMU does: no event tells of it, and it is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.host.door import OpenNode
from gpuhandoff.messages import Variant
from gpuhandoff.service.presence import PAUSE
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import hang
from gpuhandoff.simulation.kernel import SimulatedKernel
from gpuhandoff.simulation.scenarios import GPU, SCENARIOS, SECOND_GPU
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

GRACE = 30
ONCE_SEEN = 2 * PAUSE + 1


async def product(directory: Path, scenario: str = "igpu-dgpu") -> Product:
    configuration = Configuration(host=HostSettings(reclaim_grace=GRACE))
    return await Product(await SCENARIOS[scenario](), directory, configuration).start()


async def told(one: Product, gpu: str = GPU) -> tuple[str, str]:
    """Return the state of a GPU, and who has it, as the bus says them."""
    status = await one.status(gpu)
    return str(status["state"]), str(status["owner"])


def looks(one: Product) -> int:
    """How often the whole machine was looked at."""
    return sum("ListSessions" in entry.target for entry in one.machine.faults.log)


@in_virtual_time
async def test_a_guest_that_is_given_the_card_while_it_runs(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU, vm=Variant("s", "win11"))
    await asyncio.sleep(1000)
    guest = one.machine.start_guest(private_dev=True)
    await asyncio.sleep(1000)
    assert await told(one) == ("detached", "")
    one.machine.plug(guest, GPU)
    await asyncio.sleep(ONCE_SEEN)
    assert await told(one) == ("guest", f"qemu-system-x86 (pid {guest.pid})")
    one.machine.processes.end(guest.pid)
    await asyncio.sleep(GRACE - 1)
    assert await told(one) == ("detached", "")
    await asyncio.sleep(30)
    assert await told(one) == ("host", "")
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_guest_that_is_there_as_soon_as_the_card_is(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    one.machine.start_guest(GPU, private_dev=True)
    await asyncio.sleep(ONCE_SEEN)
    assert (await told(one))[0] == "guest"
    await one.stop()


@in_virtual_time
async def test_a_guest_that_lets_the_card_go_and_runs_on(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    guest = one.machine.start_guest(private_dev=True)
    for _ in range(3):
        one.machine.plug(guest, GPU)
        await asyncio.sleep(ONCE_SEEN)
        assert (await told(one))[0] == "guest"
        one.machine.unplug(guest, GPU)
        await asyncio.sleep(ONCE_SEEN)
        assert await told(one) == ("detached", "")
    await asyncio.sleep(1000)
    await one.reclaim(GPU)
    assert (await told(one))[0] == "host"
    await one.stop()


@in_virtual_time
async def test_one_that_takes_it_from_the_first_is_known(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    first, second = (one.machine.start_guest(private_dev=True) for _ in range(2))
    one.machine.plug(first, GPU)
    await asyncio.sleep(ONCE_SEEN)
    one.machine.unplug(first, GPU)
    await asyncio.sleep(ONCE_SEEN)
    one.machine.plug(second, GPU)
    await asyncio.sleep(ONCE_SEEN)
    assert await told(one) == ("guest", f"qemu-system-x86 (pid {second.pid})")
    one.machine.processes.end(first.pid)
    await asyncio.sleep(GRACE * 3)
    assert (await told(one))[0] == "guest"
    one.machine.processes.end(second.pid)
    await asyncio.sleep(GRACE * 3)
    assert (await told(one))[0] == "host"
    await one.stop()


@in_virtual_time
async def test_the_next_daemon_notices_that_it_was_let_go_while_there_was_none(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    guest = one.machine.start_guest(GPU, private_dev=True)
    await asyncio.sleep(ONCE_SEEN)
    await one.stop()
    await one.start_daemon()
    assert (await told(one))[0] == "guest"
    one.machine.unplug(guest, GPU)
    await asyncio.sleep(ONCE_SEEN)
    assert await told(one) == ("detached", "")
    await one.stop()


@in_virtual_time
async def test_nothing_is_looked_at_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await product(tmp_path)
    reads: list[str] = []

    def read(kernel: SimulatedKernel, path: str) -> str:
        reads.append(path)
        return read_attribute(kernel, path)

    read_attribute = SimulatedKernel.read
    monkeypatch.setattr(SimulatedKernel, "read", read)
    await asyncio.sleep(10_000)
    assert reads == []
    await one.handoff(GPU)
    await asyncio.sleep(ONCE_SEEN)
    before = looks(one)
    reads.clear()
    await asyncio.sleep(10_000)
    assert {path.rpartition("/")[2] for path in reads} == {"enable"}
    one.machine.start_guest(GPU, private_dev=True)
    await asyncio.sleep(10_000)
    assert looks(one) - before == 2  # the change, and once more after it
    one.machine.stop_guest(GPU)
    await asyncio.sleep(100)
    reads.clear()
    await asyncio.sleep(10_000)
    assert reads == []
    await one.stop()


@in_virtual_time
async def test_while_another_card_moves_it_waits(tmp_path: Path) -> None:
    one = await product(tmp_path, "twin")
    await one.handoff(SECOND_GPU)
    await asyncio.sleep(ONCE_SEEN)
    answers = asyncio.Event()
    one.machine.faults.set(hang(answers), kind="write", target="unbind")
    moving = asyncio.create_task(one.handoff(GPU, **{"stop-display": Variant("b", True)}))
    await asyncio.sleep(5)
    one.machine.start_guest(SECOND_GPU, private_dev=True)
    before = looks(one)
    await asyncio.sleep(ONCE_SEEN)
    assert looks(one) == before
    answers.set()
    await moving
    await asyncio.sleep(1)
    assert (await told(one, SECOND_GPU))[0] == "guest"
    await one.stop()


@in_virtual_time
async def test_a_look_in_between_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes the function, and the node of its group a moment later, is seen to have the card in between."""
    one = await product(tmp_path)
    await one.handoff(GPU)
    guest = one.machine.start_guest(GPU, private_dev=True)
    await asyncio.sleep(ONCE_SEEN)
    holding, held = one.machine.processes.holding, await one.machine.processes.holding(["/dev/vfio/14"])
    assert held
    scans = 0

    async def late(nodes: Collection[str], *, mappings: bool = True) -> tuple[OpenNode, ...]:
        nonlocal scans
        scans += 1
        return held if scans == 1 else await holding(nodes, mappings=mappings)

    monkeypatch.setattr(one.machine.processes, "holding", late)
    one.machine.unplug(guest, GPU)
    await asyncio.sleep(PAUSE + 1)
    assert (await told(one))[0] == "guest"
    await asyncio.sleep(PAUSE)
    assert await told(one) == ("detached", "")
    await one.stop()
