"""A driver goes, with its modules or without, and takes its card back."""

from __future__ import annotations

import asyncio
import errno

import pytest

from gpuhandoff.errors import InUseError, RolledBackError
from gpuhandoff.host import OverdueError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import lie, refuse
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, igpu_dgpu, single_amd, twin
from gpuhandoff.simulation.snapshot import differences
from tests.support.binding import AUDIO, DEVICES, away, driver, second_gpu, writes
from tests.support.step_cases import (
    NVIDIA,
    SCREEN_OFF,
    bind,
    claim,
    functions,
    unload,
)
from tests.support.steps import StepBench


@in_virtual_time
async def test_consumers_go_first_then_modules_in_order_and_never_drm() -> None:
    machine = await single_amd()
    bench = await StepBench.of(machine)
    for name, arguments in SCREEN_OFF:
        await bench.apply(name, arguments(machine))
    machine.faults.clear()
    await bench.apply("unload-driver", unload(machine, modules=["amdgpu"]))
    assert writes(machine, "/unbind") == ["0000:01:00.3", "0000:01:00.2", "0000:01:00.1"]
    assert [one.target for one in machine.faults.log if one.kind == "remove-module"] == ["amdgpu"]
    assert machine.faults.log[-1].kind == "remove-module"
    machine.faults.clear()
    await bench.undo_latest()
    assert writes(machine, "/driver_override") == ["amdgpu", "snd_hda_intel", "xhci_hcd", "i2c-designware-pci"]
    kinds = [one.kind for one in machine.faults.log if one.kind in {"write", "load-module"}]
    assert kinds.index("load-module") == 4
    # amdgpu binds when it loads; the others are probed in ascending order.
    assert writes(machine, "/drivers_probe") == ["0000:01:00.1", "0000:01:00.2", "0000:01:00.3"]


@in_virtual_time
async def test_a_shared_driver_is_unbound_and_stays_loaded() -> None:
    machine = await twin()
    bench = await StepBench.of(machine)
    await bench.apply("load-vfio", {})
    await bench.apply("claim-functions", claim(machine, gpu=SECOND_GPU))
    await bench.apply("unload-driver", unload(machine, modules=[], gpu=SECOND_GPU))
    assert driver(machine, SECOND_GPU) is None
    assert driver(machine, GPU) == "nvidia"
    assert not [one for one in machine.faults.log if one.kind == "remove-module"]


@in_virtual_time
async def test_a_module_in_use_is_refused_with_its_numbers_and_everything_comes_back() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    before = machine.snapshot()
    machine.processes.spawn("nvtop", opens=["/dev/nvidia0"])
    held = machine.snapshot()
    await bench.apply("claim-functions", claim(machine))
    began = asyncio.get_running_loop().time()
    with pytest.raises(InUseError) as caught:
        await bench.apply("unload-driver", unload(machine, modules=NVIDIA))
    assert 2 < asyncio.get_running_loop().time() - began < 6
    assert caught.value.message == (
        "The module nvidia cannot be unloaded: it is in use (reference count 1). Close the programs that use the GPU; "
        "`gpuhandoff holders` names those that have it open."
    )
    await bench.undo()
    await bench.settle()
    assert differences(held, machine.snapshot()) == []
    assert differences(before, machine.snapshot()) != []


@in_virtual_time
async def test_a_module_that_another_one_needs_says_which() -> None:
    bench = await second_gpu()
    with pytest.raises(InUseError, match="reference count 1, needed by nvidia_drm"):
        await bench.apply("unload-driver", unload(bench.machine, modules=["nvidia_modeset"]))


@in_virtual_time
async def test_the_last_user_of_a_module_may_take_a_moment() -> None:
    bench = await second_gpu()
    holder = bench.machine.processes.spawn("nvtop", opens=["/dev/nvidia0"])
    asyncio.get_running_loop().call_later(2, bench.machine.processes.end, holder.pid)
    await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))
    assert await bench.holds()


@in_virtual_time
async def test_a_module_that_is_gone_already_is_done() -> None:
    bench = await second_gpu()
    begun = await bench.capture("unload-driver", unload(bench.machine, modules=NVIDIA))
    await bench.machine.kernel.remove_module("nvidia_uvm")
    await bench.step("unload-driver").apply(bench.host, begun.arguments, begun.saved)
    await bench.undo()
    assert "nvidia_uvm" in bench.machine.modules.loaded


@in_virtual_time
async def test_sound_that_somebody_has_open_is_left_pending_in_the_kernel() -> None:
    bench = await second_gpu()
    bench.machine.processes.spawn("arecord", opens=["/dev/snd/controlC1"])
    with pytest.raises(OverdueError) as caught:
        await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))
    assert caught.value.waits_in == "snd_card_free"
    assert "nvidia" in bench.machine.modules.loaded


@in_virtual_time
async def test_functions_without_a_driver_stay_without() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", AUDIO)
    before = machine.snapshot()
    await bench.apply("load-vfio", {})
    await bench.apply("claim-functions", claim(machine))
    await bench.apply("unload-driver", unload(machine, modules=NVIDIA))
    await bench.apply("bind-vfio", bind(machine))
    await bench.undo()
    assert differences(before, machine.snapshot()) == []


@in_virtual_time
async def test_functions_on_vfio_before_stay_there() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await machine.kernel.load_module("vfio_pci")
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", AUDIO)
    await machine.kernel.write(f"{DEVICES}/{AUDIO}/driver_override", "vfio-pci")
    await machine.kernel.write("/sys/bus/pci/drivers_probe", AUDIO)
    before = machine.snapshot()
    await bench.apply("claim-functions", claim(machine))
    await bench.apply("unload-driver", unload(machine, modules=NVIDIA))
    assert await bench.holds()
    assert driver(machine, AUDIO) == "vfio-pci"
    await bench.apply("bind-vfio", bind(machine))
    await bench.undo_latest()
    assert [driver(machine, one) for one in functions(machine)] == [None, "vfio-pci"]
    await bench.undo()
    assert driver(machine, AUDIO) == "vfio-pci"
    after_all = machine.snapshot()
    after_all["modules"].pop("vfio_iommu_type1", None)
    assert differences(before["functions"], after_all["functions"]) == []


@in_virtual_time
async def test_a_driver_that_does_not_take_its_card_back_says_why() -> None:
    bench = await away()
    await bench.undo_latest()
    bench.begun.pop()
    bench.machine.faults.set(lie(), kind="write", target="drivers_probe", nth=0)
    bench.machine.faults.set(refuse(errno.ENOMEM), kind="write", target="snd_hda_intel/bind", nth=0)
    with pytest.raises(RolledBackError, match=rf"The driver snd_hda_intel does not take {AUDIO}: Cannot allocate memory"):
        await bench.undo_latest()
