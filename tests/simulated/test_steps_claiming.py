"""Functions are reserved, and consoles and framebuffers let go of them."""

from __future__ import annotations

import errno

import pytest

from gpuhandoff.errors import RolledBackError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Perform, lie
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu, single_amd
from gpuhandoff.simulation.snapshot import differences
from tests.support.binding import AUDIO, DEVICES, driver, second_gpu
from tests.support.step_cases import (
    NVIDIA,
    bind,
    claim,
    consoles,
    firmware_only,
    framebuffers,
    functions,
    unload,
)
from tests.support.steps import StepBench


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
