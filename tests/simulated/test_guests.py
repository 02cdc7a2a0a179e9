"""A guest that dies, never comes or is left by its caller: the GPU comes back without being asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff import names
from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import after, reject
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product
from tests.support.step_cases import foreign

GPU = "0000:01:00.0"
GRACE = 30


async def product(directory: Path, scenario: str = "igpu-dgpu", grace: int = GRACE) -> Product:
    configuration = Configuration(host=HostSettings(reclaim_grace=grace))
    return await Product(await SCENARIOS[scenario](), directory, configuration).start()


async def state(one: Product) -> str:
    return str((await one.status(GPU))["state"])


@in_virtual_time
async def test_a_guest_that_dies_is_followed_by_a_reclaim_after_the_grace(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    one.machine.start_guest(GPU)
    await asyncio.sleep(1000)
    assert await state(one) == "guest"
    one.machine.stop_guest(GPU)
    await asyncio.sleep(GRACE - 1)
    assert await state(one) == "detached"
    await asyncio.sleep(30)
    assert await state(one) == "host"
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_guest_that_is_started_again_in_time_keeps_the_gpu(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    for _ in range(3):
        one.machine.start_guest(GPU)
        await asyncio.sleep(100)
        assert await state(one) == "guest"
        one.machine.stop_guest(GPU)
        await asyncio.sleep(GRACE - 1)
        assert await state(one) == "detached"
    await one.reclaim(GPU)
    await asyncio.sleep(100)
    assert await state(one) == "host"
    await one.stop()


@in_virtual_time
async def test_without_a_grace_it_comes_back_at_once(tmp_path: Path) -> None:
    one = await product(tmp_path, grace=0)
    await one.handoff(GPU)
    one.machine.start_guest(GPU)
    await asyncio.sleep(1)
    one.machine.stop_guest(GPU)
    await asyncio.sleep(10)
    assert await state(one) == "host"
    await one.stop()


@in_virtual_time
async def test_a_handoff_without_a_guest_stays_unless_it_said_how_long(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    await asyncio.sleep(100_000)
    assert await state(one) == "detached"
    await one.reclaim(GPU)
    await one.handoff(GPU, **{"guest-timeout": Variant("u", 60)})
    await asyncio.sleep(59)
    assert await state(one) == "detached"
    await asyncio.sleep(30)
    assert await state(one) == "host"
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_guest_that_came_in_time_is_not_hurried(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU, **{"guest-timeout": Variant("u", 60)})
    await asyncio.sleep(50)
    one.machine.start_guest(GPU)
    await asyncio.sleep(1000)
    assert await state(one) == "guest"
    await one.stop()


@in_virtual_time
async def test_the_next_daemon_knows_the_guest_and_that_it_has_ended_meanwhile(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    one.machine.start_guest(GPU)
    await asyncio.sleep(1)
    await one.stop()
    await one.start_daemon()
    assert await state(one) == "guest"
    await one.stop()
    one.machine.stop_guest(GPU)
    await one.start_daemon()
    assert await state(one) == "detached"
    await asyncio.sleep(GRACE + 30)
    assert await state(one) == "host"
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_the_time_for_a_guest_runs_on_while_no_daemon_does(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU, **{"guest-timeout": Variant("u", 60)})
    await one.stop()
    await asyncio.sleep(50)
    await one.start_daemon()
    assert await state(one) == "detached"
    await asyncio.sleep(15)
    assert await state(one) == "host"
    await one.stop()


@in_virtual_time
async def test_a_lease_ends_with_its_caller_also_under_the_next_daemon(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU, lease=Variant("b", True))
    await one.stop()
    await one.start_daemon()
    assert await state(one) == "detached"
    await one.client.close()
    await asyncio.sleep(30)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_lease_that_ended_while_no_daemon_ran(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU, lease=Variant("b", True))
    await one.stop()
    await one.client.close()
    await one.start_daemon()
    await asyncio.sleep(30)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_lease_holder_that_leaves_in_the_middle_stops_the_handoff(tmp_path: Path) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    caller = one.broker.connect(uid=1000)
    options = {"lease": Variant("b", True), "wait": Variant("b", False)}
    await caller.call(
        "org.gpuhandoff.Manager",
        "/org/gpuhandoff/Manager",
        "org.gpuhandoff.Manager",
        "Handoff",
        "sa{sv}",
        (GPU, options),
    )
    await caller.close()
    await one.idle()
    await asyncio.sleep(1)
    assert "detached" not in one.states()
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_reclaim_with_a_guest_is_refused_by_name(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    one.machine.start_guest(GPU)
    with pytest.raises(RemoteError, match="qemu-system-x86") as caught:
        await one.reclaim(GPU)
    assert caught.value.name == "org.gpuhandoff.Error.InUse"
    assert await state(one) == "guest"
    await one.stop()


@in_virtual_time
async def test_a_guest_on_a_card_that_somebody_else_detached_is_ended_with_consent(tmp_path: Path) -> None:
    machine = await foreign()
    await machine.kernel.load_module("vfio_iommu_type1")
    machine.start_guest(GPU)
    one = await Product(machine, tmp_path).start()
    with pytest.raises(RemoteError, match="holders=terminate"):
        await one.reclaim(GPU)
    await one.call("Reclaim", "sa{sv}", GPU, {"holders": Variant("s", "terminate")})
    assert await state(one) == "host"
    assert (await one.status(GPU))["driver"] == "nvidia"
    await one.stop()


@pytest.mark.parametrize("nth", [1, 2])
@in_virtual_time
async def test_a_lease_ends_although_a_service_did_not_answer_once(tmp_path: Path, nth: int) -> None:
    """The look that the lease makes, or the one that the Reclaim makes."""
    one = await product(tmp_path)
    before = one.machine.snapshot()
    lessee = one.broker.connect(uid=1000)
    body = (GPU, {"lease": Variant("b", value=True)})
    await lessee.call(names.BUS_NAME, names.MANAGER_PATH, names.MANAGER_INTERFACE, "Handoff", "sa{sv}", body, timeout=600)
    late = RemoteError("org.freedesktop.DBus.Error.NoReply", "Late.")
    one.machine.faults.set(reject(late), target="ListSessions", nth=nth)
    lessee.drop()
    await asyncio.sleep(60)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@pytest.mark.parametrize("when", ["away", "no daemon", "no answer", "confining"])
@in_virtual_time
async def test_what_was_changed_on_the_host_for_a_card_that_left_the_bus_is_undone(tmp_path: Path, when: str) -> None:
    one = await product(tmp_path)
    machine = one.machine
    before = {machine.units.units[unit].allowed_cpus for unit in ("user.slice", "system.slice")}

    def pull_out() -> None:
        for function in ("0000:01:00.0", "0000:01:00.1"):
            machine.tree.remove(f"/sys/bus/pci/devices/{function}")
            machine.uevents.emit("remove", f"/sys/devices/{function}", "pci")

    if when == "confining":
        machine.faults.set(after(pull_out), target="SetUnitProperties")
    await one.handoff(GPU)
    if when == "no daemon":
        one.kill()
    if when != "confining":
        assert {machine.units.units[unit].allowed_cpus for unit in ("user.slice", "system.slice")} != before
        pull_out()
    if when == "no daemon":
        await one.start_daemon()
    if when == "no answer":
        late = RemoteError("org.freedesktop.DBus.Error.NoReply", "Late.")
        machine.faults.set(reject(late), target="ListSessions", nth=2)
    await asyncio.sleep(60)
    assert machine.snapshot()["inhibitors"] == []
    assert {machine.units.units[unit].allowed_cpus for unit in ("user.slice", "system.slice")} == before
    for named in (GPU, ""):
        with pytest.raises(RemoteError, match=r"0000:01:00\.0 was handed off and has left the PCI bus since"):
            await one.reclaim(named)
    (move,) = await one.call("History", "su", GPU, 1)
    assert (move["why"].value, move["outcome"].value) == ("gpu-gone", "stuck")
    assert (
        "has left the PCI bus. Put it back, or write 1 to /sys/bus/pci/rescan. Then gpuhandoff goes on by itself."
        in move["message"].value
    )
    await one.stop()
