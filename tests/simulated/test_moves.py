"""Handoff and Reclaim of the whole product on every simulated machine; the oracle is the machine's snapshot."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.faults import Effect, fail_afterwards, refuse
from gpuhandoff.simulation.faults import before as just_before
from gpuhandoff.simulation.scenarios import GPU, SCENARIOS, SECOND_GPU
from gpuhandoff.simulation.snapshot import differences
from tests.support.fault_matrix import ALL
from tests.support.product import Product
from tests.support.tidying import unnumbered

MOVABLE = {
    "single-nvidia": "0000:01:00.0",
    "single-amd": "0000:01:00.0",
    "igpu-dgpu": "0000:01:00.0",
    "twin": "0000:01:00.0",
    "blackwell": "0000:01:00.0",
}


async def product(scenario: str, directory: Path) -> Product:
    """Return a started product."""
    return await Product(await SCENARIOS[scenario](), directory).start()


def distinct(states: list[str]) -> list[str]:
    """Return the states without those that only gave a new reason."""
    return [state for state, before in zip(states, ["", *states], strict=False) if state != before]


@pytest.mark.parametrize("scenario", MOVABLE)
def test_there_and_back(scenario: str, tmp_path: Path) -> None:
    async def main() -> None:
        started = await product(scenario, tmp_path)
        before = started.machine.snapshot()
        gpu = MOVABLE[scenario]
        await started.handoff(gpu, vm=Variant("s", "win11"))
        status = await started.status(gpu)
        assert (status["state"], status["vm"], status["driver"]) == ("detached", "win11", "vfio-pci")
        started.machine.start_guest(gpu)
        await asyncio.sleep(0.1)
        assert (await started.status(gpu))["state"] == "guest"
        started.machine.stop_guest(gpu)
        await asyncio.sleep(0.1)
        await started.reclaim(gpu)
        await asyncio.sleep(1)
        assert differences(before, started.machine.snapshot()) == []
        assert started.journals() == []
        assert distinct(started.states()) == ["handing-off", "detached", "guest", "detached", "reclaiming", "host"]
        await started.stop()

    run(main())


def test_a_device_of_the_host_in_the_group_refuses_before_anything_moves(tmp_path: Path) -> None:
    async def main() -> None:
        started = await product("shared-group", tmp_path)
        before = started.machine.snapshot()
        with pytest.raises(RemoteError, match="shares its IOMMU group") as caught:
            await started.handoff("0000:01:00.0")
        assert caught.value.name == "org.gpuhandoff.Error.NotIsolated"
        assert differences(before, started.machine.snapshot()) == []
        await started.stop()

    run(main())


def test_sessions_and_units_are_asked_for_again_after_a_move_that_touched_them_and_not_else(tmp_path: Path) -> None:
    def asked(started: Product) -> int:
        return sum(one.target.endswith("ListSessions") for one in started.machine.faults.log)

    async def main() -> None:
        started = await product("igpu-dgpu", tmp_path / "dual")
        await asyncio.sleep(1)
        before = asked(started)
        await started.call("Handoff", "sa{sv}", MOVABLE["igpu-dgpu"], {})
        await asyncio.sleep(1)
        assert asked(started) == before + 2  # for the plan, and after the kernel's events; at the move's end not
        await started.stop()
        started = await product("single-nvidia", tmp_path / "single")
        assert started.daemon is not None
        for move, there in ((started.handoff, False), (started.reclaim, True)):
            await move(MOVABLE["single-nvidia"])
            world = started.daemon.fleet.world
            assert world.display_manager is not None
            assert world.display_manager.is_active is there
        await started.stop()

    run(main())


def operations(scenario: str, directory: Path) -> int:
    """Return how many operations a handoff makes on this machine."""

    async def main() -> int:
        started = await product(scenario, directory / "count")
        started.machine.faults.log.clear()
        await started.handoff(MOVABLE[scenario])
        count = len(started.machine.faults.log)
        await started.stop()
        return count

    return run(main())


EFFECTS: dict[str, Callable[[], Effect]] = {
    "EIO": lambda: refuse(errno.EIO),
    "EBUSY": lambda: refuse(errno.EBUSY),
    "after": fail_afterwards,
}


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("scenario", MOVABLE)
def test_any_operation_that_fails_once_leaves_everything_as_it_was(scenario: str, effect: str, tmp_path: Path) -> None:
    """Every operation in each way on the first machine; on the others each in one way, and in all of them with `ALL`."""
    ends: Counter[str] = Counter()
    messages: list[str] = []

    async def one(nth: int) -> None:
        started = await product(scenario, tmp_path / str(nth))
        before = started.machine.snapshot()
        started.machine.faults.set(EFFECTS[effect](), nth=nth)
        gpu = MOVABLE[scenario]
        try:
            await started.handoff(gpu)
        except RemoteError as error:
            messages.append(error.message)
            ends["refused"] += 1
        else:
            started.machine.faults.clear()
            await started.reclaim(gpu)
            ends["done"] += 1
        await asyncio.sleep(1)
        assert differences(before, started.machine.snapshot()) == [], nth
        assert (await started.status(gpu))["state"] == "host"
        assert started.journals() == []
        await started.stop()

    each = scenario == "single-nvidia" or os.environ.get(ALL)
    first, stride = (1, 1) if each else (1 + list(EFFECTS).index(effect), len(EFFECTS))
    tried = range(first, operations(scenario, tmp_path) + 1, stride)
    for nth in tried:
        run(one(nth))
    assert sum(ends.values()) == len(tried)
    assert ends["refused"] > len(tried) // 4
    assert not [message for message in messages if "internal error" in message]


@pytest.mark.parametrize("scenario", MOVABLE)
def test_cancelled_at_any_operation_everything_is_as_it_was(scenario: str, tmp_path: Path) -> None:
    async def one(nth: int) -> None:
        started = await product(scenario, tmp_path / str(nth))
        was = started.machine.snapshot()
        gpu = MOVABLE[scenario]

        def cancel() -> None:
            job = started.jobs.running(PciAddress.parse(gpu))
            if job is not None and job.cancelable:
                started.jobs.cancel(job)

        started.machine.faults.set(just_before(cancel), nth=nth)
        try:
            await started.handoff(gpu)
        except RemoteError as error:
            names.add(error.name)
        else:
            await started.reclaim(gpu)
        await asyncio.sleep(1)
        assert differences(was, started.machine.snapshot()) == [], nth
        assert (await started.status(gpu))["state"] == "host"
        await started.stop()

    names: set[str] = set()
    for nth in range(1, operations(scenario, tmp_path) + 1):
        run(one(nth))
    assert names == {"org.gpuhandoff.Error.Cancelled"}


@pytest.mark.parametrize("first", [GPU, SECOND_GPU])
def test_two_gpus_of_one_driver_go_together_and_come_back_in_any_order(first: str, tmp_path: Path) -> None:
    """The one that goes last takes the driver's modules along, which the one that comes back first needs."""

    async def main() -> None:
        started = await product("twin", tmp_path)
        before = started.machine.snapshot()
        await started.handoff(SECOND_GPU)
        await started.handoff(GPU)
        assert "nvidia" not in started.machine.modules.loaded
        for gpu in (first, *({GPU, SECOND_GPU} - {first})):
            await started.reclaim(gpu)
            assert (await started.status(gpu))["state"] == "host"
        await asyncio.sleep(3)
        assert differences(unnumbered(before), unnumbered(started.machine.snapshot())) == []
        await started.stop()

    run(main())
