"""Modules: what delete_module refuses and modprobe loads (kernel.md 1.4)."""

import asyncio
import errno

import pytest

from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import INTEL_GPU, igpu_dgpu, single_amd, single_nvidia, twin

ONBOARD_AUDIO = "0000:00:1f.3"


@in_virtual_time
async def test_an_open_drm_node_makes_removal_eagain_at_once() -> None:
    machine = await single_nvidia()
    with pytest.raises(BlockingIOError):
        await machine.kernel.remove_module("nvidia_drm", deadline=0.5)


@in_virtual_time
async def test_a_module_that_another_one_needs_is_eagain() -> None:
    machine = await igpu_dgpu()
    assert machine.kernel.entries("/sys/module/nvidia/holders") == ["nvidia_modeset", "nvidia_uvm"]
    with pytest.raises(BlockingIOError):
        await machine.kernel.remove_module("nvidia")


@in_virtual_time
async def test_a_module_that_is_not_loaded_is_enoent() -> None:
    machine = await igpu_dgpu()
    with pytest.raises(FileNotFoundError):
        await machine.kernel.remove_module("nouveau")
    with pytest.raises(FileNotFoundError):
        await machine.kernel.load_module("no_such_module")


@in_virtual_time
async def test_a_console_does_not_pin_the_driver() -> None:
    machine = await single_nvidia()
    for name in ("display-manager.service", "nvidia-persistenced.service"):
        unit = machine.units.find(name)
        assert unit is not None
        await machine.units.stop(unit)
    await machine.processes.ended([one.value for one in machine.processes.with_path("/dev/dri/card0")], timeout=5)
    assert machine.kernel.read("/proc/fb") == "0 nvidia-drmdrmfb"
    for module in ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"):
        await machine.kernel.remove_module(module)
    assert machine.kernel.read("/proc/fb") == ""
    assert machine.kernel.link("/sys/bus/pci/devices/0000:01:00.0/driver") is None


@in_virtual_time
async def test_intel_hda_pins_i915() -> None:
    machine = await igpu_dgpu()
    for process in machine.processes.with_path("/dev/dri/card0"):
        machine.processes.end(process.pid)
    assert machine.kernel.read("/sys/module/i915/refcnt") == "1"
    with pytest.raises(BlockingIOError):
        await machine.kernel.remove_module("i915")
    for process in machine.processes.with_path("/dev/snd/controlC0"):
        machine.processes.end(process.pid)
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", ONBOARD_AUDIO)
    await machine.kernel.remove_module("i915")
    assert machine.kernel.link(f"/sys/bus/pci/devices/{INTEL_GPU}/driver") is None


@in_virtual_time
async def test_proc_modules_and_modules_dep_name_the_stack() -> None:
    machine = await igpu_dgpu()
    lines = {line.split()[0]: line.split() for line in machine.kernel.read("/proc/modules").splitlines()}
    assert lines["nvidia_modeset"][3] == "nvidia_drm,"
    assert lines["nvidia_drm"][3] == "-"
    dependencies = machine.kernel.read(f"/lib/modules/{machine.kernel_release}/modules.dep")
    assert "updates/dkms/nvidia-current-open-modeset.ko: updates/dkms/nvidia-current-open.ko" in dependencies
    assert "xhci-pci.ko" in machine.kernel.read(f"/lib/modules/{machine.kernel_release}/modules.builtin")


@in_virtual_time
async def test_modprobe_finds_files_of_other_names_by_the_lines_that_say_so() -> None:
    machine = await igpu_dgpu()
    await machine.kernel.remove_module("nvidia_uvm")
    await machine.kernel.load_module("nvidia-current-open-uvm")
    assert "nvidia_uvm" in machine.modules.loaded
    await machine.kernel.remove_module("nvidia_uvm")
    await machine.kernel.load_module("nvidia_uvm")
    assert "nvidia_uvm" in machine.modules.loaded
    await machine.kernel.remove_module("nvidia_uvm")
    machine.tree.remove("/etc/modprobe.d/nvidia.conf")
    with pytest.raises(FileNotFoundError):
        await machine.kernel.load_module("nvidia_uvm")


@in_virtual_time
async def test_a_built_in_driver_has_no_module_link() -> None:
    machine = await single_amd()
    assert machine.kernel.link("/sys/bus/pci/devices/0000:01:00.2/driver") == "xhci_hcd"
    assert machine.kernel.link("/sys/bus/pci/drivers/xhci_hcd/module") is None
    assert machine.kernel.link("/sys/bus/pci/drivers/amdgpu/module") == "amdgpu"
    await machine.kernel.load_module("xhci_pci")


@in_virtual_time
async def test_loading_brings_what_is_needed_and_shows_the_picture_again() -> None:
    machine = await igpu_dgpu()
    for module in ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"):
        await machine.kernel.remove_module(module)
    assert not machine.kernel.exists("/dev/dri/card1")
    await machine.kernel.load_module("nvidia-drm")
    assert {"nvidia", "nvidia_modeset", "nvidia_drm"} <= set(machine.modules.loaded)
    assert machine.kernel.exists("/dev/dri/card1")


@in_virtual_time
async def test_two_who_load_the_same_module_at_once_get_one_module() -> None:
    machine = await twin()
    await asyncio.gather(machine.kernel.load_module("vfio_pci"), machine.kernel.load_module("vfio_pci"))
    function = "0000:02:00.1"
    await machine.kernel.write(f"/sys/bus/pci/devices/{function}/driver_override", "vfio-pci")
    await machine.kernel.write("/sys/bus/pci/drivers/snd_hda_intel/unbind", function)
    await machine.kernel.write("/sys/bus/pci/drivers_probe", function)
    await machine.kernel.load_module("vfio_pci")
    await machine.kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", function)
    first, second = await asyncio.gather(
        machine.kernel.remove_module("vfio_pci"), machine.kernel.remove_module("vfio_pci"), return_exceptions=True
    )
    assert first is None
    assert isinstance(second, OSError)
    assert second.errno == errno.EBUSY
