"""What blocks in the kernel, for how long, and what then (kernel.md 1.4, 1.5)."""

import asyncio

import pytest

from gpuhandoff.host.door import OverdueError, Uevent
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, igpu_dgpu, single_amd, twin

AUDIO = "0000:01:00.1"


def unbind(driver: str) -> str:
    return f"/sys/bus/pci/drivers/{driver}/unbind"


def bound(machine: SimulatedMachine, address: str) -> str | None:
    return machine.kernel.link(f"/sys/bus/pci/devices/{address}/driver")


@in_virtual_time
async def test_fact_6_an_open_sound_node_makes_the_unbind_sleep_until_it_is_closed() -> None:
    machine = await igpu_dgpu()
    holder = machine.processes.spawn("arecord", opens=["/dev/snd/controlC1"])
    unbound: list[Uevent] = []
    machine.uevents.subscribe(lambda event: unbound.append(event) if event.action == "unbind" else None)
    with pytest.raises(OverdueError) as caught:
        await machine.kernel.write(unbind("snd_hda_intel"), AUDIO, deadline=5)
    assert (caught.value.state, caught.value.waits_in) == ("D", "snd_card_free")
    assert bound(machine, AUDIO) is None
    assert not unbound
    machine.processes.close(holder)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [event.path.rsplit("/", 1)[-1] for event in unbound] == [AUDIO]
    assert not machine.operations


@in_virtual_time
async def test_the_abandoned_child_is_seen_in_d_state_and_ends_with_the_operation() -> None:
    machine = await igpu_dgpu()
    holder = machine.processes.spawn("arecord", opens=["/dev/snd/controlC1"])
    with pytest.raises(OverdueError) as caught:
        await machine.kernel.write(unbind("snd_hda_intel"), AUDIO, deadline=5)
    child = machine.processes.get(caught.value.process)
    assert child is not None
    assert child.state == "D"
    assert machine.processes.signal(child.value, 9)
    await asyncio.sleep(1)
    assert machine.processes.get(child.pid) is child
    machine.processes.close(holder)
    assert await machine.processes.ended([child.value], timeout=1)


@in_virtual_time
async def test_wireplumber_closes_a_sound_card_that_goes() -> None:
    machine = await igpu_dgpu(sound="/dev/snd/controlC")
    assert machine.processes.with_path("/dev/snd/controlC1")
    await machine.kernel.write(unbind("snd_hda_intel"), AUDIO, deadline=5)
    assert bound(machine, AUDIO) is None
    await machine.kernel.write("/sys/bus/pci/drivers_probe", AUDIO)
    await asyncio.sleep(1)
    assert machine.processes.with_path("/dev/snd/controlC1")


@in_virtual_time
async def test_fact_7_old_kernels_block_on_driver_override_while_the_device_is_locked() -> None:
    machine = await igpu_dgpu(kernel="6.1.0-56-amd64")
    override = f"/sys/bus/pci/devices/{AUDIO}/driver_override"
    with pytest.raises(RuntimeError, match="read_locked"):
        machine.kernel.read(override)
    assert await machine.kernel.read_locked(override) == "(null)"
    holder = machine.processes.spawn("arecord", opens=["/dev/snd/controlC1"])
    with pytest.raises(OverdueError):
        await machine.kernel.write(unbind("snd_hda_intel"), AUDIO, deadline=1)
    with pytest.raises(OverdueError):
        await machine.kernel.read_locked(override, deadline=1)
    machine.processes.close(holder)
    assert await machine.kernel.read_locked(override, deadline=1) == "(null)"


@in_virtual_time
async def test_fact_7_newer_kernels_do_not() -> None:
    machine = await igpu_dgpu()
    machine.processes.spawn("arecord", opens=["/dev/snd/controlC1"])
    with pytest.raises(OverdueError):
        await machine.kernel.write(unbind("snd_hda_intel"), AUDIO, deadline=1)
    assert await machine.kernel.read_locked(f"/sys/bus/pci/devices/{AUDIO}/driver_override") == "(null)"


@in_virtual_time
async def test_drivers_probe_of_a_stuck_device_returns_success_and_bind_waits() -> None:
    machine = await igpu_dgpu()
    machine.processes.spawn("arecord", opens=["/dev/snd/controlC1"])
    with pytest.raises(OverdueError):
        await machine.kernel.write(unbind("snd_hda_intel"), AUDIO, deadline=1)
    await machine.kernel.write("/sys/bus/pci/drivers_probe", AUDIO)
    assert bound(machine, AUDIO) is None
    with pytest.raises(OverdueError) as caught:
        await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/bind", AUDIO, deadline=1)
    assert caught.value.state == "D"


@in_virtual_time
async def test_an_open_i2c_bus_blocks_the_gpu_driver() -> None:
    machine = await single_amd()
    await machine.kernel.write(unbind("snd_hda_intel"), AUDIO)
    node = next(one.path for one in machine.tree.nodes() if one.device.endswith(GPU) and "i2c" in one.path)
    holder = machine.processes.spawn("ddcutil", opens=[node])
    with pytest.raises(OverdueError) as caught:
        await machine.kernel.write(unbind("amdgpu"), GPU, deadline=5)
    assert (caught.value.state, caught.value.waits_in) == ("D", "i2c_del_adapter")
    machine.processes.end(holder.pid)
    await asyncio.sleep(0.1)
    assert not machine.operations


@in_virtual_time
async def test_in_tree_drivers_unbind_under_an_open_drm_node_but_stay_pinned() -> None:
    machine = await single_amd()
    holders = machine.processes.with_path("/dev/dri/card0")
    assert holders
    before = machine.modules.references("amdgpu")
    await machine.kernel.write(unbind("amdgpu"), GPU, deadline=1)
    assert not machine.kernel.exists("/dev/dri/card0")
    assert {one.process.pid for one in await machine.processes.holding(["/dev/dri/card0"])} == {p.pid for p in holders}
    assert machine.modules.references("amdgpu") == before
    with pytest.raises(BlockingIOError):
        await machine.kernel.remove_module("amdgpu")


@in_virtual_time
async def test_fact_11_nvidia_waits_for_its_users_in_a_sleep_that_looks_interruptible() -> None:
    machine = await twin()
    holder = machine.processes.spawn("nvtop", opens=["/dev/nvidia1"])
    with pytest.raises(OverdueError) as caught:
        await machine.kernel.write(unbind("nvidia"), SECOND_GPU, deadline=5)
    assert caught.value.state == "S"
    machine.processes.end(holder.pid)
    await asyncio.sleep(0.1)
    assert not machine.operations


@in_virtual_time
async def test_fact_11_with_cuda_killing_the_holder_does_not_help() -> None:
    machine = await twin()
    holder = machine.processes.spawn("ollama", opens=["/dev/nvidia1", "/dev/nvidia-uvm"])
    with pytest.raises(OverdueError):
        await machine.kernel.write(unbind("nvidia"), SECOND_GPU, deadline=5)
    machine.processes.end(holder.pid)
    await asyncio.sleep(1000)
    assert machine.operations


@in_virtual_time
@pytest.mark.parametrize(
    ("version", "unbinds"),
    [("575.64.05", False), ("580.95.05", False), ("580.94.06", True), ("580.105.08", True), ("595.45.04", True)],
)
async def test_fact_11_older_nvidia_drm_with_modeset_holds_the_gpu_itself(version: str, *, unbinds: bool) -> None:
    machine = await twin(nvidia_version=version)
    if unbinds:
        await machine.kernel.write(unbind("nvidia"), SECOND_GPU, deadline=5)
    else:
        with pytest.raises(OverdueError):
            await machine.kernel.write(unbind("nvidia"), SECOND_GPU, deadline=5)


@in_virtual_time
async def test_a_cancelled_caller_waits_for_the_kernel() -> None:
    machine = await igpu_dgpu()
    task = asyncio.create_task(machine.kernel.write(unbind("snd_hda_intel"), AUDIO))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bound(machine, AUDIO) is None
    assert not machine.operations
