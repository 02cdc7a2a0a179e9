"""What a hypervisor's events do: the GPU is lent before the guest starts and back when it has ended, whatever happens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import Variant
from gpuhandoff.service.hypervisor import GUEST_TIMEOUT
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import late
from tests.support.domains import CARD, domain_xml
from tests.support.hypervisor_events import ALLOWED, GPU, OTHER, ended, event, moves, product, state, unchanged


@in_virtual_time
async def test_from_prepare_to_release(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    status = await one.status(GPU)
    assert (status["state"], status["vm"]) == ("detached", "win11")
    await event(one, "start")
    one.machine.start_guest(GPU)
    await event(one, "started")
    assert await state(one) == "guest"
    await asyncio.sleep(10_000)
    assert await state(one) == "guest"
    one.machine.stop_guest(GPU)
    await ended(one)
    assert await state(one) == "host"
    unchanged(one, before)
    assert moves(one) == ["done", "done"]  # once there, once back, although two events tell of the end
    await asyncio.sleep(1000)
    assert moves(one) == ["done", "done"]
    await one.stop()


@in_virtual_time
async def test_ten_cycles(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    for _ in range(10):
        await event(one, "prepare")
        one.machine.start_guest(GPU)
        await event(one, "started")
        one.machine.stop_guest(GPU)
        await ended(one)
        unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_domain_without_a_gpu_moves_nothing(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    for operation in ("prepare", "start", "started", "stopped", "release", "reconnect", "migrate", "restore", "attach"):
        await event(one, operation, domain_xml(()))
        await event(one, operation, domain_xml(("0000:04:00.0",)))
    assert one.signals == []
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_each_of_two_gpus_to_a_guest_of_its_own(tmp_path: Path) -> None:
    one = await product(tmp_path, "twin")
    before = one.machine.snapshot()
    second = domain_xml((OTHER, "0000:02:00.1"), name="win10")
    await event(one, "prepare")
    await event(one, "prepare", second, "win10")
    assert (await state(one), await state(one, OTHER)) == ("detached", "detached")
    await ended(one)
    assert (await state(one), await state(one, OTHER)) == ("host", "detached")
    await ended(one, "win10", second)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_guest_that_fails_to_start_brings_the_gpu_back(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_so_does_one_of_whose_end_nobody_tells(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    await asyncio.sleep(GUEST_TIMEOUT - 5)
    assert await state(one) == "detached"
    await asyncio.sleep(30)
    unchanged(one, before)
    await event(one, "release")
    assert moves(one) == ["done", "done"]
    await one.stop()


@in_virtual_time
async def test_the_configuration_may_say_how_long(tmp_path: Path) -> None:
    one = await product(tmp_path, configuration=Configuration(vms={"win11": {"stop_display": True, "guest_timeout": 20}}))
    await event(one, "prepare")
    await asyncio.sleep(40)
    assert await state(one) == "host"
    await one.stop()


@pytest.mark.parametrize("probed", [True, False])
def test_managed_by_libvirt_ends_in_the_same_place(probed: bool, tmp_path: Path) -> None:
    """libvirt finds the functions on vfio-pci and leaves them; at the end it may have given them back already."""

    @in_virtual_time
    async def main() -> None:
        one = await product(tmp_path)
        before = one.machine.snapshot()
        xml = domain_xml(managed="yes")
        await event(one, "prepare", xml)
        one.machine.start_guest(GPU)
        await event(one, "started", xml)
        one.machine.stop_guest(GPU)
        await event(one, "stopped", xml)
        kernel = one.machine.kernel
        for address in CARD:
            device = f"/sys/bus/pci/devices/{address}"
            await kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", address)
            await kernel.write(f"{device}/driver_override", "\n")
            if probed:
                await kernel.write("/sys/bus/pci/drivers_probe", address)
        await event(one, "release", xml)
        assert await state(one) == "host"
        unchanged(one, before)
        await one.stop()

    main()


@in_virtual_time
async def test_managed_and_nobody_told_of_the_end(tmp_path: Path) -> None:
    """The next prepare finds a journal of a handoff that libvirt has half undone."""
    one = await product(tmp_path, configuration=Configuration(HostSettings(reclaim_grace=3600), vms=ALLOWED.vms))
    before = one.machine.snapshot()
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.machine.stop_guest(GPU)
    for address in CARD:
        await one.machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", address)
    await event(one, "prepare")
    assert await state(one) == "detached"
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_card_that_is_lent_to_this_guest_already_stays(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU, vm=Variant("s", "win11"))
    await event(one, "prepare")
    assert moves(one) == ["done"]
    await ended(one)
    unchanged(one, before)
    await one.stop()


@in_virtual_time
async def test_a_card_that_is_lent_to_nobody_in_particular_stays_as_well(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.machine.stop_guest(GPU)
    await ended(one)
    assert await state(one) == "detached"  # not lent to this guest by us: whoever did so, or the daemon, takes it back
    await asyncio.sleep(30)
    unchanged(one, before)
    await one.stop()


@pytest.mark.parametrize("after", [9.9, 10.1, 10.3, 10.45, 10.6, 10.8])
@in_virtual_time
async def test_a_guest_that_starts_while_the_way_back_begins_gets_the_card(tmp_path: Path, after: float) -> None:
    """A look takes half a second: the Reclaim may begin between the hook's look and its answer."""
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    one.machine.stop_guest(GPU)
    await asyncio.sleep(1)
    one.machine.faults.set(late(0.5), target="ListSessions", nth=0)
    await asyncio.sleep(after - 1)
    await event(one, "prepare")
    one.machine.start_guest(GPU)
    await event(one, "started")
    await asyncio.sleep(60)
    assert await state(one) == "guest"
    one.machine.faults.clear()
    one.machine.stop_guest(GPU)
    await ended(one)
    unchanged(one, before)
    await one.stop()
