"""The steps that move the card: override, consoles, framebuffers, drivers, vfio-pci, and the way back of others' cards."""

from __future__ import annotations

import asyncio
import errno
import re

import pytest

from gpuhandoff.errors import InUseError, RolledBackError, UnsupportedError
from gpuhandoff.host import OverdueError
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Perform, lie, refuse
from gpuhandoff.simulation.faults import before as just_before
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, igpu_dgpu, single_amd, twin
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.simulation.tree import Node
from tests.support.step_cases import (
    NVIDIA,
    SCREEN_OFF,
    bind,
    claim,
    consoles,
    firmware_only,
    foreign,
    framebuffers,
    functions,
    release,
    unload,
)
from tests.support.steps import StepBench

AUDIO = "0000:01:00.1"
DEVICES = "/sys/bus/pci/devices"
RENDER = "/dev/dri/renderD129"


def driver(machine: SimulatedMachine, address: str) -> str | None:
    return machine.kernel.link(f"{DEVICES}/{address}/driver")


def writes(machine: SimulatedMachine, target: str) -> list[str]:
    """What was written to attributes of this name, in order."""
    return [one.detail.strip() for one in machine.faults.log if one.kind == "write" and one.target.endswith(target)]


async def second_gpu() -> StepBench:
    """Claimed, still with its driver."""
    bench = await StepBench.of(await igpu_dgpu())
    await bench.apply("load-vfio", {})
    await bench.apply("claim-functions", claim(bench.machine))
    return bench


async def away() -> StepBench:
    """On vfio-pci."""
    bench = await second_gpu()
    await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))
    await bench.apply("bind-vfio", bind(bench.machine))
    return bench


# claim-functions


@in_virtual_time
async def test_claimed_functions_are_overridden_and_kept_out_of_d3cold_with_their_port() -> None:
    bench = await second_gpu()
    card = [bench.machine.pci.at(address) for address in functions(bench.machine)]
    assert [one.override for one in card] == ["vfio-pci", "vfio-pci"]
    assert not any(one.d3cold_allowed for one in card)
    assert card[0].parent is not None
    assert not card[0].parent.d3cold_allowed
    assert driver(bench.machine, GPU) == "nvidia"


@in_virtual_time
async def test_an_override_of_somebody_else_comes_back_and_none_is_cleared_by_a_newline() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.pci.at(AUDIO).override = "snd_hda_intel"
    await bench.apply("claim-functions", claim(machine))
    await bench.undo()
    assert [machine.pci.at(one).override for one in (GPU, AUDIO)] == ["", "snd_hda_intel"]
    assert [one.detail for one in machine.faults.log if one.target == f"{DEVICES}/{GPU}/driver_override"][-2:] == ["\n", ""]


@in_virtual_time
async def test_a_function_that_is_gone_has_nothing_to_set_back() -> None:
    bench = await second_gpu()
    bench.machine.tree.remove(f"{DEVICES}/{AUDIO}")
    await bench.undo()
    assert bench.machine.pci.at(GPU).override == ""


@in_virtual_time
async def test_an_override_that_is_not_taken_is_noticed() -> None:
    bench = await StepBench.of(await igpu_dgpu())
    bench.machine.faults.set(lie(), kind="write", target="driver_override")
    with pytest.raises(RolledBackError, match=f"driver_override of {GPU} reads unset after vfio-pci was written"):
        await bench.apply("claim-functions", claim(bench.machine))


# unbind-consoles, unbind-framebuffers


@in_virtual_time
async def test_only_consoles_on_a_framebuffer_are_unbound() -> None:
    bench = await StepBench.of(await single_amd())
    begun = await bench.apply("unbind-consoles", {"consoles": ["vtcon0", "vtcon1", "vtcon7"]})
    assert begun.saved == {"bound": ["vtcon1"]}
    assert [one.target for one in bench.machine.faults.log if one.kind == "write"] == ["/sys/class/vtconsole/vtcon1/bind"]


@in_virtual_time
async def test_a_console_without_a_framebuffer_is_not_touched() -> None:
    machine = await firmware_only()
    machine.graphics.evict_firmware(machine.pci.at(GPU))
    assert machine.kernel.read("/sys/class/vtconsole/vtcon0/bind") == "1"
    bench = await StepBench.of(machine)
    begun = await bench.capture("unbind-consoles", {"consoles": ["vtcon0"]})
    assert begun.saved == {"bound": []}


@in_virtual_time
async def test_a_console_that_stays_bound_is_named() -> None:
    bench = await StepBench.of(await single_amd())
    bench.machine.faults.set(lie(), kind="write", target="vtcon1/bind")
    with pytest.raises(RolledBackError, match="text console vtcon1 stays on the GPU's framebuffer"):
        await bench.apply("unbind-consoles", consoles(bench.machine))


@in_virtual_time
@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOENT])
async def test_a_console_that_goes_at_that_moment_is_done(number: int) -> None:
    machine = await single_amd()
    bench = await StepBench.of(machine)

    async def gone(_perform: Perform) -> None:
        machine.tree.remove("/sys/class/vtconsole/vtcon1")
        raise OSError(number, "gone")

    begun = await bench.capture("unbind-consoles", consoles(machine))
    machine.faults.set(gone, kind="write", target="vtcon1/bind")
    await bench.step("unbind-consoles").apply(bench.host, begun.arguments, begun.saved)
    await bench.undo()


@in_virtual_time
async def test_a_console_that_does_not_come_back_by_itself_keeps_nothing_from_coming_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = await StepBench.of(await single_amd())
    await bench.apply("unbind-consoles", consoles(bench.machine))
    bench.machine.faults.set(lie(), kind="write", target="vtcon1/bind")
    await bench.undo()
    assert "vtcon1 is not on a framebuffer again" in caplog.text


@in_virtual_time
async def test_fact_9_a_firmware_framebuffer_that_vfio_drove_off_is_gone_and_no_error() -> None:
    machine = await firmware_only()
    bench = await StepBench.of(machine)
    await bench.apply("load-vfio", {})
    await bench.apply("claim-functions", claim(machine))
    await bench.apply("unbind-framebuffers", framebuffers(machine))
    await bench.apply("bind-vfio", bind(machine))
    await bench.undo()
    assert machine.kernel.read("/proc/fb") == ""
    assert driver(machine, GPU) is None


@in_virtual_time
async def test_a_framebuffer_that_is_gone_already_is_done() -> None:
    machine = await firmware_only()
    bench = await StepBench.of(machine)
    begun = await bench.capture("unbind-framebuffers", framebuffers(machine))
    machine.graphics.evict_firmware(machine.pci.at(GPU))
    await bench.step("unbind-framebuffers").apply(bench.host, begun.arguments, begun.saved)
    await bench.undo()


# unload-driver


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
@pytest.mark.parametrize("moment", ["claim-functions", "unload-driver"])
async def test_a_function_that_had_no_driver_leaves_vfio_again_whoever_brought_it_there(moment: str) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", AUDIO)
    before = machine.snapshot()
    await bench.apply("load-vfio", {})
    for step, arguments in {
        "claim-functions": claim(machine),
        "unload-driver": unload(machine, modules=NVIDIA),
        "bind-vfio": bind(machine),
    }.items():
        await bench.apply(step, arguments)
        if step == moment:
            await machine.kernel.write("/sys/bus/pci/drivers_probe", AUDIO)
            assert driver(machine, AUDIO) == "vfio-pci"
    await bench.undo()
    assert differences(before, machine.snapshot()) == []


# bind-vfio


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


# release-functions


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
