"""Each refusal: its name, and that its sentence names what is wrong and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuhandoff.config import HostSettings
from gpuhandoff.errors import (
    InUseError,
    InvalidArgsError,
    NeedsConsentError,
    NotIsolatedError,
    ProblemError,
    UnsupportedError,
    WrongStateError,
)
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.kernel import Module
from gpuhandoff.model.request import HolderPolicy, Hugepages, Options
from gpuhandoff.model.world import Gpu, Process, Unit, World
from gpuhandoff.plan.handoff import plan_handoff
from tests.support.worlds import ALICE, AUDIO_CLASS, COMPOSITOR, CUDA, DISPLAY_CLASS, LOGIND, NETWORK_CLASS, function

CARD = PciAddress(0, 1, 0, 0)
GPU = Gpu(
    CARD,
    "NVIDIA GeForce RTX 4070",
    (function(CARD, DISPLAY_CLASS, "nvidia"), function(PciAddress(0, 1, 0, 1), AUDIO_CLASS, "snd_hda_intel")),
    cards=("/dev/dri/card0",),
)
WORLD = World(
    boot_id="b",
    kernel_release="6.12.107",
    gpus=(GPU,),
    modules=(Module("nvidia", 0), Module("nvidia_drm", 0)),
    available_modules=frozenset({"vfio_pci", "nvidia", "nvidia_drm"}),
    sessions=(ALICE,),
    online_cpus=frozenset(range(8)),
    memory_total=32 << 30,
    memory_available=16 << 30,
)


def refuse(world: World, gpu: Gpu, options: Options | None = None) -> ProblemError:
    """Return the refusal of a handoff."""
    with pytest.raises(ProblemError) as caught:
        plan_handoff(replace(world, gpus=(gpu,)), gpu, options or Options(), HostSettings())
    return caught.value


def test_nothing_is_wrong_with_the_plain_machine() -> None:
    assert plan_handoff(WORLD, GPU, Options(), HostSettings()).gpu == CARD


def test_a_gpu_with_a_guest() -> None:
    problem = refuse(WORLD, replace(GPU, guest=Process(4711, 1, "qemu-system-x86", 64055)))
    assert isinstance(problem, WrongStateError)
    assert "qemu-system-x86 (pid 4711)" in problem.message


def test_no_iommu() -> None:
    problem = refuse(replace(WORLD, iommu=False), GPU)
    assert isinstance(problem, NotIsolatedError)
    assert "intel_iommu=on" in problem.message


def test_no_group() -> None:
    lonely = replace(GPU, functions=tuple(replace(one, iommu_group=None) for one in GPU.functions))
    assert isinstance(refuse(WORLD, lonely), NotIsolatedError)


def test_a_device_of_the_host_in_the_group_is_named() -> None:
    stranger = function(PciAddress(0, 2, 0, 0), NETWORK_CLASS, "e1000e")
    problem = refuse(WORLD, replace(GPU, group=(stranger,)))
    assert isinstance(problem, NotIsolatedError)
    assert "0000:02:00.0 (driver e1000e)" in problem.message


@pytest.mark.parametrize("driver", [None, "vfio-pci", "pci-stub", "pcieport"])
def test_devices_that_may_share_the_group(driver: str | None) -> None:
    neighbour = function(PciAddress(0, 2, 0, 0), NETWORK_CLASS, driver)
    plan_handoff(WORLD, replace(GPU, group=(neighbour,)), Options(), HostSettings())


def test_no_vfio_for_this_kernel() -> None:
    problem = refuse(replace(WORLD, available_modules=frozenset({"nvidia"})), GPU)
    assert isinstance(problem, UnsupportedError)
    assert "6.12.107" in problem.message


def test_a_driver_that_could_not_be_loaded_again() -> None:
    problem = refuse(replace(WORLD, available_modules=frozenset({"vfio_pci", "nvidia"})), GPU)
    assert isinstance(problem, UnsupportedError)
    assert "nvidia_drm" in problem.message


def test_a_module_of_somebody_else_that_needs_the_drivers() -> None:
    """Its removal fails at once, but only with the desktop gone."""
    needed = Module("nvidia", 2, ("nvidia_drm", "gdrdrv"))
    modules = (needed, Module("nvidia_drm", 0, ("[permanent]",)))
    problem = refuse(replace(WORLD, modules=modules), GPU, Options(holders=HolderPolicy.TERMINATE))
    assert isinstance(problem, InUseError)
    assert "the module gdrdrv needs it" in problem.message
    assert "modprobe -r gdrdrv" in problem.message
    place = PciAddress(0, 9, 0, 0)
    other = replace(GPU, address=place, functions=(function(place, DISPLAY_CLASS, "nvidia"),))
    plan_handoff(replace(WORLD, modules=modules, gpus=(GPU, other)), GPU, Options(), HostSettings())
    needed = Module("nvidia", 1, ("nvidia_drm",))
    plan_handoff(replace(WORLD, modules=(needed, modules[1])), GPU, Options(), HostSettings())


@pytest.mark.parametrize(
    ("module", "sound", "refused"),
    [
        ("i915", "snd_hda_intel", True),
        ("xe", "sof-audio-pci-intel-tgl", True),
        ("i915", None, False),
        ("i915", "vfio-pci", False),
        ("nouveau", "snd_hda_intel", False),
    ],
)
def test_a_sound_device_elsewhere_that_holds_the_module(module: str, sound: str | None, *, refused: bool) -> None:
    """Only a sound device that is no function of the card: those are unbound before the module goes."""
    audio = function(PciAddress(0, 0, 31, 3), AUDIO_CLASS, sound)
    gpu = replace(GPU, functions=(function(CARD, DISPLAY_CLASS, module),), audio=(audio,))
    world = replace(WORLD, modules=(Module(module, 3),), available_modules=frozenset({"vfio_pci", module}))
    if refused:
        problem = refuse(world, gpu)
        assert isinstance(problem, InUseError)
        assert f"0000:00:1f.3 | sudo tee /sys/bus/pci/drivers/{sound}/unbind" in problem.message
    else:
        plan_handoff(replace(world, gpus=(gpu,)), gpu, Options(), HostSettings())
    place = PciAddress(0, 9, 0, 0)
    other = replace(gpu, address=place, functions=(function(place, DISPLAY_CLASS, module),))
    plan_handoff(replace(world, gpus=(gpu, other)), gpu, Options(), HostSettings())  # then it is only unbound


def test_a_program_that_uses_the_card_is_named() -> None:
    problem = refuse(WORLD, replace(GPU, holders=(CUDA,)))
    assert isinstance(problem, InUseError)
    assert "ollama (pid 4242)" in problem.message
    assert "holders=terminate" in problem.message


def test_a_program_that_uses_the_card_refuses_also_when_the_desktop_may_end() -> None:
    held = replace(GPU, holders=(CUDA, COMPOSITOR, LOGIND))
    assert isinstance(refuse(WORLD, held, Options(stop_display=True)), InUseError)
    plan_handoff(WORLD, held, Options(stop_display=True, holders=HolderPolicy.TERMINATE), HostSettings())


def test_ending_the_desktop_needs_consent_and_says_whose() -> None:
    problem = refuse(WORLD, replace(GPU, holders=(COMPOSITOR, LOGIND)))
    assert isinstance(problem, NeedsConsentError)
    assert "alice" in problem.message
    assert "stop-display" in problem.message


@pytest.mark.parametrize("unit", [Unit("sddm.service", "activating"), Unit("sddm.service", "inactive", job="start")])
def test_a_display_manager_that_has_not_opened_its_only_gpu_yet_counts(unit: Unit) -> None:
    starting = replace(WORLD, display_manager=unit)
    assert isinstance(refuse(starting, GPU), NeedsConsentError)
    plan = plan_handoff(starting, GPU, Options(stop_display=True), HostSettings())
    (stop,) = [step for step in plan.steps if step.name == "stop-display"]
    assert stop.arguments["display_manager"] == "sddm.service"


def test_a_cpu_that_is_not_there() -> None:
    problem = refuse(WORLD, GPU, Options(cpus=frozenset({0, 9})))
    assert isinstance(problem, InvalidArgsError)
    assert "CPU 9" in problem.message


def test_hugepages_without_memory() -> None:
    assert isinstance(refuse(WORLD, GPU, Options(hugepages=Hugepages.STATIC)), InvalidArgsError)


def test_more_memory_than_there_is() -> None:
    problem = refuse(WORLD, GPU, Options(memory=64 << 30))
    assert isinstance(problem, UnsupportedError)
    assert "32768 MiB" in problem.message
