"""The steps that move the card: override, consoles, framebuffers, drivers, vfio-pci, and the way back of others' cards."""

from __future__ import annotations

import asyncio
import errno
import re

import pytest

from gpuhandoff.errors import InUseError, RolledBackError, UnsupportedError
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import before as just_before
from gpuhandoff.simulation.faults import lie, refuse
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, igpu_dgpu, twin
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.simulation.tree import Node
from tests.support.binding import AUDIO, DEVICES, away, driver, second_gpu, writes
from tests.support.step_cases import (
    NVIDIA,
    bind,
    claim,
    foreign,
    functions,
    release,
    unload,
)
from tests.support.steps import StepBench


@in_virtual_time
async def test_what_somebody_elses_probe_brought_to_vfio_comes_back_as_well() -> None:
    """A script that writes to drivers_probe all the time, seen on the real kernel: the override is ours, and obeyed."""
    bench = await second_gpu()
    await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))
    await bench.machine.kernel.write("/sys/bus/pci/drivers_probe", AUDIO)
    assert driver(bench.machine, AUDIO) == "vfio-pci"
    await bench.apply("bind-vfio", bind(bench.machine))
    await bench.undo()
    assert [driver(bench.machine, one) for one in functions(bench.machine)] == ["nvidia", "snd_hda_intel"]


@in_virtual_time
async def test_bound_functions_stay_awake_and_a_guest_can_open_them() -> None:
    bench = await away()
    assert [bench.machine.pci.at(one).control for one in functions(bench.machine)] == ["on", "on"]
    bench.machine.start_guest(GPU)


@in_virtual_time
async def test_drivers_probe_that_lies_is_not_believed() -> None:
    bench = await second_gpu()
    await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))
    bench.machine.faults.set(lie(), kind="write", target="drivers_probe", nth=0)
    await bench.apply("bind-vfio", bind(bench.machine))
    assert await bench.holds()


@in_virtual_time
async def test_a_function_that_another_driver_takes_is_named() -> None:
    bench = await second_gpu()
    await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))

    def meddle() -> None:
        bench.machine.pci.at(AUDIO).override = ""

    bench.machine.faults.set(just_before(meddle), kind="write", target="drivers_probe")
    with pytest.raises(RolledBackError, match=f"{AUDIO} went to the driver snd_hda_intel instead of vfio-pci"):
        await bench.apply("bind-vfio", bind(bench.machine))


@in_virtual_time
async def test_a_kernel_that_lies_throughout_is_found_out() -> None:
    bench = await second_gpu()
    await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))
    bench.machine.faults.set(lie(), kind="write", target="drivers_probe", nth=0)
    bench.machine.faults.set(lie(), kind="write", target="vfio-pci/bind", nth=0)
    with pytest.raises(RolledBackError, match=rf"{AUDIO} is still without a driver 10 s after"):
        await bench.apply("bind-vfio", bind(bench.machine))


@in_virtual_time
async def test_vfio_that_does_not_take_a_function_says_why_at_once() -> None:
    above = hardware.port(1, 1)
    machine = SimulatedMachine((above, *hardware.rtx_4070(above, 1, 14, boot_vga=False)), iommu=False)
    await machine.boot((), ())
    bench = await StepBench.of(machine)
    await bench.apply("load-vfio", {})
    await bench.apply("claim-functions", claim(machine))
    began = asyncio.get_running_loop().time()
    with pytest.raises(RolledBackError, match=rf"The driver vfio-pci does not take {AUDIO}: Invalid argument"):
        await bench.apply("bind-vfio", bind(machine))
    assert asyncio.get_running_loop().time() - began < 1


@in_virtual_time
async def test_a_kernel_without_vfio_is_told_from_one_that_refuses_it() -> None:
    bench = await StepBench.of(await igpu_dgpu())
    bench.machine.faults.set(refuse(errno.EIO), kind="load-module", target="vfio_pci")
    with pytest.raises(UnsupportedError, match="vfio_pci cannot be loaded: Input/output error"):
        await bench.apply("load-vfio", {})
    del bench.machine.modules.available["vfio_pci"]
    with pytest.raises(UnsupportedError, match=r"running kernel has no module vfio_pci.*reboot"):
        await bench.apply("load-vfio", {})


@in_virtual_time
async def test_never_unbound_under_a_guest() -> None:
    bench = await away()
    guest = bench.machine.start_guest(GPU)
    bench.machine.faults.clear()
    with pytest.raises(InUseError, match=rf"A virtual machine still has the GPU: qemu-system-x86 \(pid {guest.pid}\)"):
        await bench.undo()
    assert writes(bench.machine, "/unbind") == []
    bench.machine.stop_guest(GPU)
    await bench.undo()
    assert driver(bench.machine, GPU) == "nvidia"


@in_virtual_time
async def test_never_unbound_under_a_guest_with_iommufd() -> None:
    bench = await away()
    (name,) = bench.machine.kernel.entries(f"{DEVICES}/{AUDIO}/vfio-dev")
    node = Node(f"/dev/vfio/devices/{name}", 12345)
    bench.machine.tree.add(node.path, node)
    bench.machine.processes.spawn("qemu-system-x86", opens=[node.path])
    with pytest.raises(InUseError, match=node.path):
        await bench.undo()
    assert driver(bench.machine, GPU) == "vfio-pci"


@in_virtual_time
async def test_another_card_on_vfio_is_not_taken_from_it_with_the_modules() -> None:
    machine = await twin()
    bench = await StepBench.of(machine)
    await bench.apply("load-vfio", {})
    await bench.apply("claim-functions", claim(machine, gpu=SECOND_GPU))
    await bench.apply("unload-driver", unload(machine, modules=[], gpu=SECOND_GPU))
    await bench.apply("bind-vfio", bind(machine, gpu=SECOND_GPU))
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", AUDIO)
    await machine.kernel.write(f"{DEVICES}/{AUDIO}/driver_override", "vfio-pci")
    await machine.kernel.write("/sys/bus/pci/drivers_probe", AUDIO)
    await bench.undo()
    assert driver(machine, AUDIO) == "vfio-pci"
    assert driver(machine, SECOND_GPU) == "nvidia"
    assert {"vfio_pci", "vfio_iommu_type1"} <= set(machine.modules.loaded)


@in_virtual_time
async def test_a_module_of_the_family_that_somebody_uses_stays() -> None:
    bench = await away()
    bench.machine.processes.spawn("other-vmm", opens=["/dev/vfio/vfio"])
    await bench.undo()
    assert "vfio_iommu_type1" in bench.machine.modules.loaded
    assert "vfio_pci" not in bench.machine.modules.loaded


@in_virtual_time
async def test_a_foreign_card_comes_to_its_driver_without_an_override() -> None:
    machine = await foreign()
    bench = await StepBench.of(machine)
    machine.faults.clear()
    await bench.apply("release-functions", release(machine))
    assert [driver(machine, one) for one in functions(machine)] == ["nvidia", "snd_hda_intel"]
    assert [machine.pci.at(one).override for one in functions(machine)] == ["", ""]
    assert writes(machine, "vfio-pci/unbind") == [AUDIO, GPU]


@in_virtual_time
async def test_a_foreign_card_is_not_taken_from_a_guest() -> None:
    machine = await foreign()
    await machine.kernel.load_module("vfio_iommu_type1")
    bench = await StepBench.of(machine)
    machine.start_guest(GPU)
    before = machine.snapshot()
    with pytest.raises(InUseError, match="qemu-system-x86"):
        await bench.apply("release-functions", release(machine))
    await bench.undo()
    assert differences(before, machine.snapshot()) == []


def without_drivers(machine: SimulatedMachine) -> SimulatedMachine:
    """Have a host on which no module that is installed knows the card."""
    for name in ("nvidia", "nouveau"):
        machine.modules.available.pop(name, None)
    return machine


@in_virtual_time
async def test_a_card_that_no_driver_wants_goes_back_to_whom_it_was_with() -> None:
    machine = without_drivers(await foreign())
    bench = await StepBench.of(machine)
    before = machine.snapshot()
    with pytest.raises(RolledBackError, match=f"{GPU} was released from vfio-pci, but no driver of this host wants it"):
        await bench.apply("release-functions", {**release(machine), "modules": []})
    await bench.undo()
    assert differences(before, machine.snapshot()) == []


@in_virtual_time
async def test_a_card_that_vfio_takes_again_by_its_ids_says_so() -> None:
    machine = without_drivers(await foreign())
    bench = await StepBench.of(machine)
    for identity in ("10de 2786", "10de 22bc"):
        await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/new_id", identity)
    for address in functions(machine):
        await machine.kernel.write(f"{DEVICES}/{address}/driver_override", "\n")
    before = machine.snapshot()
    with pytest.raises(RolledBackError, match=re.escape("vfio-pci takes it again")):
        await bench.apply("release-functions", {**release(machine), "modules": []})
    await bench.undo()
    assert differences(before, machine.snapshot()) == []
