"""Groups, guests and power (kernel.md 3, 4.2)."""

import asyncio
import errno

import pytest

from gpuhandoff.host.door import OverdueError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu, shared_group

AUDIO = "0000:01:00.1"


async def detached(machine: SimulatedMachine) -> SimulatedMachine:
    """Bring the idle NVIDIA card to vfio-pci."""
    for function in (GPU, AUDIO):
        await machine.kernel.write(f"/sys/bus/pci/devices/{function}/driver_override", "vfio-pci")
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", AUDIO)
    for module in ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"):
        await machine.kernel.remove_module(module)
    await machine.kernel.load_module("vfio_pci")
    return machine


@in_virtual_time
async def test_the_group_has_a_node_while_a_device_is_bound() -> None:
    machine = await detached(await igpu_dgpu())
    assert machine.kernel.device_number("/dev/vfio/14") is not None
    assert machine.kernel.entries(f"/sys/bus/pci/devices/{GPU}/vfio-dev")
    for function in (GPU, AUDIO):
        await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", function)
    assert not machine.kernel.exists("/dev/vfio/14")


@in_virtual_time
async def test_a_guest_needs_the_iommu_backend_and_only_one_has_the_group() -> None:
    machine = await detached(await igpu_dgpu())
    with pytest.raises(OSError) as caught:  # noqa: PT011
        machine.start_guest(GPU)
    assert caught.value.errno == errno.ENODEV
    await machine.kernel.load_module("vfio_iommu_type1")
    machine.start_guest(GPU)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        machine.start_guest(GPU)
    assert caught.value.errno == errno.EBUSY


@in_virtual_time
async def test_a_stranger_in_the_group_makes_it_not_viable() -> None:
    machine = await detached(await shared_group())
    await machine.kernel.load_module("vfio_iommu_type1")
    with pytest.raises(PermissionError):
        machine.start_guest(GPU)


@in_virtual_time
async def test_unbinding_under_a_guest_waits_for_its_end() -> None:
    machine = await detached(await igpu_dgpu())
    await machine.kernel.load_module("vfio_iommu_type1")
    machine.start_guest(GPU)
    with pytest.raises(OverdueError) as caught:
        await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", GPU, deadline=60)
    assert caught.value.waits_in == "vfio_unregister_group_dev"
    machine.stop_guest(GPU)
    assert await machine.processes.ended([], timeout=1)
    await machine.waits.takes(0.1)
    assert not machine.operations


@in_virtual_time
async def test_a_native_driver_is_shut_out_of_a_guests_group() -> None:
    machine = await detached(await igpu_dgpu())
    await machine.kernel.load_module("vfio_iommu_type1")
    await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", AUDIO)
    machine.start_guest(GPU)
    await machine.kernel.write(f"/sys/bus/pci/devices/{AUDIO}/driver_override", "\n")
    for path, number in (
        ("/sys/bus/pci/drivers_probe", errno.EINVAL),
        ("/sys/bus/pci/drivers/snd_hda_intel/bind", errno.EBUSY),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await machine.kernel.write(path, AUDIO)
        assert caught.value.errno == number


@in_virtual_time
async def test_binding_lets_the_device_sleep_and_unbinding_forbids_it() -> None:
    machine = await detached(await igpu_dgpu())
    power = f"/sys/bus/pci/devices/{GPU}/power"
    assert machine.kernel.read(f"{power}/control") == "auto"
    assert machine.kernel.read(f"{power}/runtime_status") == "suspended"
    assert machine.kernel.read(f"/sys/bus/pci/devices/{GPU}/power_state") == "D3cold"
    await machine.kernel.write(f"/sys/bus/pci/devices/{GPU}/d3cold_allowed", "0")
    assert machine.kernel.read(f"/sys/bus/pci/devices/{GPU}/power_state") == "D3hot"
    await machine.kernel.write(f"{power}/control", "on")
    assert machine.kernel.read(f"{power}/runtime_status") == "active"
    await machine.kernel.write(f"{power}/control", "auto")
    await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", GPU)
    assert machine.kernel.read(f"{power}/control") == "on"
    assert machine.kernel.read(f"/sys/bus/pci/devices/{GPU}/power_state") == "unknown"


@in_virtual_time
async def test_opening_and_closing_the_group_is_told_to_those_who_watch() -> None:
    machine = await detached(await igpu_dgpu())
    await machine.kernel.load_module("vfio_iommu_type1")
    seen: list[bool] = []
    unwatch = machine.openings.watch("/dev/vfio/14", lambda: seen.append(machine.vfio.is_open(14)))
    machine.start_guest(GPU)
    await asyncio.sleep(0.1)
    machine.stop_guest(GPU)
    await asyncio.sleep(0.1)
    unwatch()
    machine.start_guest(GPU)
    await asyncio.sleep(0.1)
    assert seen == [True, False]


@in_virtual_time
async def test_an_idle_gpu_of_a_laptop_sleeps_and_nobody_wakes_it() -> None:
    machine = await igpu_dgpu()
    assert machine.kernel.read(f"/sys/bus/pci/devices/{GPU}/power/runtime_status") == "suspended"


@in_virtual_time
async def test_without_an_iommu_vfio_does_not_bind() -> None:
    machine = SimulatedMachine([*(await igpu_dgpu()).pci.devices.values()][:0], iommu=False)
    assert machine.kernel.entries("/sys/kernel/iommu_groups") == []
