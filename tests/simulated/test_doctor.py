"""What the doctor finds on machines that have something: each with its evidence and remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.config import Configuration, ConfigurationError
from gpuhandoff.doctor import Severity
from gpuhandoff.messages import Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.hardware import Firmware
from gpuhandoff.model.surroundings import Family
from gpuhandoff.model.verdict import Kind, Verdict
from gpuhandoff.model.world import Holder, Process, State
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import igpu_dgpu, shared_group, single_nvidia, twin
from tests.support.diagnosis import SAFE, found, one, with_dgpu, world_of
from tests.support.product import Product


def test_the_worst_comes_first() -> None:
    ranks = [each.severity.rank for each in found(world_of(shared_group))]
    assert ranks == sorted(ranks)


def test_an_iommu_that_is_off() -> None:
    world = replace(world_of(single_nvidia), iommu=False)
    here = one(found(world), "iommu")
    assert (here.severity, "update-grub" in here.remedy) == (Severity.PROBLEM, True)
    assert "grubby --update-kernel=ALL --args=intel_iommu=on" in one(found(world, Family.FEDORA), "iommu").remedy
    assert "`sudo rpm-ostree kargs --append-if-missing=intel_iommu=on`" in one(found(world, Family.OSTREE), "iommu").remedy
    assert "`sudo kernelstub -a intel_iommu=on`" in one(found(world, Family.POP), "iommu").remedy
    off = replace(world, boot_parameters=("intel_iommu=off",))
    assert one(found(off), "iommu").remedy.startswith("Remove intel_iommu=off from GRUB_CMDLINE")
    firmware = replace(world, boot_parameters=(), iommu_firmware=Firmware.NONE)
    assert "in its setup" in one(found(firmware), "iommu").remedy


def test_modules_that_an_upgrade_took_away() -> None:
    world = world_of(single_nvidia)
    assert one(found(replace(world, available_modules=frozenset())), "vfio").severity is Severity.PROBLEM
    gone = replace(world, available_modules=world.available_modules - {"nvidia_drm"})
    assert "nvidia_drm" in one(found(gone), "driver").evidence


def test_boot_parameters_that_are_in_the_way() -> None:
    world = replace(world_of(single_nvidia), boot_parameters=("pcie_acs_override=downstream", "nomodeset"))
    assert one(found(world), "acs-override").severity is Severity.WARNING
    assert one(found(world), "nomodeset").severity is Severity.WARNING


def test_a_group_that_is_shared() -> None:
    here = one(found(world_of(shared_group)), "group")
    assert here.severity is Severity.PROBLEM
    assert here.evidence == "Group 14: 0000:04:00.0 (other, igc)"
    alone = one(found(world_of(igpu_dgpu)), "group")
    assert (alone.severity, alone.evidence) == (Severity.FINE, "Group 14: 2 functions.")


def test_memory_that_the_firmware_wants() -> None:
    async def build() -> SimulatedMachine:
        machine = await single_nvidia()
        machine.direct_regions[14] = ["0x00000000bd000000 0x00000000bdffffff direct"]
        return machine

    assert one(found(world_of(build)), "reserved").evidence == "0xbd000000-0xbdffffff direct"


def test_a_driver_that_lets_go_of_no_single_card() -> None:
    old = world_of(lambda: twin(nvidia_version="550.120"))
    assert one(found(replace(old, nvidia_modeset=True)), "driver").severity is Severity.PROBLEM
    assert one(found(world_of(twin)), "driver").severity is Severity.NOTE


def test_programs_that_use_the_card() -> None:
    world = world_of(igpu_dgpu)
    holder = Holder(Process(4242, 1, "ollama", 998), ("/dev/nvidia0",), "ollama.service")
    assert one(found(with_dgpu(world, holders=(holder,))), "holders").evidence == "ollama (pid 4242)"
    lent = with_dgpu(world, guest=Process(4711, 1, "qemu-system-x86", 64055))
    assert one(found(lent), "holders").severity is Severity.NOTE


@pytest.mark.parametrize(
    ("compositor", "words"),
    [
        ("kwin_wayland", "KWIN_DRM_DEVICES=/dev/dri/desktop  into ~/.config/environment.d/"),
        ("gnome-shell", 'KERNELS=="0000:01:00.0", TAG+="mutter-device-ignore"'),
        ("Hyprland", "AQ_DRM_DEVICES=/dev/dri/desktop  into /etc/environment;"),
        ("sway", "WLR_DRM_DEVICES=/dev/dri/desktop  into /etc/environment;"),
    ],
)
def test_a_compositor_that_has_the_other_card_open(compositor: str, words: str) -> None:
    world = world_of(igpu_dgpu)
    cgroup = "/user.slice/user-1000.slice/user@1000.service/session.slice/x.service"
    holder = Holder(Process(4242, 1, compositor, 1000, cgroup), ("/dev/dri/card0",))
    shown = replace(world, gpus=tuple(replace(gpu, holders=(holder,)) for gpu in world.gpus))
    here = one(found(shown), "compositor")
    assert here.severity is Severity.WARNING
    assert words in here.remedy
    assert here.remedy.endswith("then reboot.")
    assert not [each for each in found(world) if each.check == "compositor"]


@pytest.mark.parametrize(
    ("verdict", "severity", "words"),
    [
        (SAFE, Severity.FINE, ""),
        (Verdict(Kind.UNKNOWN, "?", "none"), Severity.NOTE, ""),
        (Verdict(Kind.CAUTION, "?", "none"), Severity.WARNING, ""),
        (Verdict(Kind.CAUTION, "?", "none", needed=False), Severity.NOTE, ""),
        (Verdict(Kind.ONCE_PER_BOOT, "?", "none"), Severity.WARNING, "one guest a boot"),
        (Verdict(Kind.ONCE_PER_BOOT, "?", "none", runs=1), Severity.WARNING, "Reboot before the next guest"),
        (Verdict(Kind.ONCE_PER_BOOT, "?", "none", by_kernel=True), Severity.WARNING, "another kernel"),
        (Verdict(Kind.NEEDS_VENDOR_RESET, "?", "none"), Severity.WARNING, "0000:01:00.0/reset_method"),
        (Verdict(Kind.BROKEN, "?", "none"), Severity.PROBLEM, "--accept-risk"),
        (Verdict(Kind.BROKEN, "?", "none", needed=False, leaving=True), Severity.PROBLEM, "--accept-risk"),
    ],
)
def test_whether_it_comes_back(verdict: Verdict, severity: Severity, words: str) -> None:
    here = one(found(world_of(single_nvidia), verdict=verdict), "reset")
    assert here.severity is severity
    assert words in here.remedy
    assert "Resets that the kernel lists: bus. Source: " in here.evidence


def test_what_nobody_is_asked_to_accept_is_not_offered() -> None:
    for runs, words in ((0, "Boot another kernel."), (1, "Boot another kernel, or accept it: --accept-risk.")):
        verdict = Verdict(Kind.ONCE_PER_BOOT, "?", "none", runs=runs, by_kernel=True)
        assert one(found(world_of(single_nvidia), verdict=verdict), "reset").remedy == words


def test_what_holds_for_a_processors_graphics_is_a_note_where_there_is_a_card() -> None:
    findings = found(world_of(igpu_dgpu), verdict=Verdict(Kind.BROKEN, "?", "none"))
    assert one(findings, "reset").severity is Severity.PROBLEM
    assert one(findings, "reset", "0000:00:02.0").severity is Severity.NOTE


@pytest.mark.parametrize(("state", "severity"), [(State.STUCK, Severity.PROBLEM), (State.FOREIGN, Severity.WARNING)])
def test_where_it_is(state: State, severity: Severity) -> None:
    here = one(found(world_of(single_nvidia), state=(state, "why")), "state")
    assert (here.severity, here.evidence) == (severity, "why")


def test_what_is_without_a_driver_was_not_necessarily_moved() -> None:
    world = world_of(single_nvidia)
    gpu = world.gpus[0]
    bare = replace(world, gpus=(replace(gpu, functions=tuple(replace(one, driver="") for one in gpu.functions)),))
    for each, words in ((world, "was moved by somebody else."), (bare, "is without a driver.")):
        assert one(found(each, state=(State.FOREIGN, "why")), "state").what == f"{gpu.name} {words}"


@in_virtual_time
async def test_the_bus_tells_the_same(tmp_path: Path) -> None:
    product = await Product(await single_nvidia(), tmp_path).start()
    findings: list[dict[str, Variant]] = await product.call("Diagnose")
    told: list[dict[str, Any]] = [{key: value.value for key, value in each.items()} for each in findings]
    assert {each["check"] for each in told} >= {"iommu", "vfio", "group", "reset", "layout", "desktop"}
    assert {*told[0]} == {"severity", "check", "gpu", "what", "evidence", "remedy"}
    await product.stop()


@in_virtual_time
async def test_a_configuration_that_is_not_in_effect_is_a_problem(tmp_path: Path) -> None:
    product = await Product(await single_nvidia(), tmp_path).start()

    async def told() -> list[str]:
        found: list[dict[str, Variant]] = await product.call("Diagnose")
        return [each["evidence"].value for each in found if each["check"].value == "configuration"]

    def fail() -> Configuration:
        raise ConfigurationError(Path("gpuhandoff.toml"), 3, "speed", "", "fast", "no such key")

    assert product.daemon is not None
    good = product.daemon._setting.load_configuration
    assert await told() == []
    for load, expected in ((fail, ["gpuhandoff.toml:3: no such key"]), (good, [])):
        product.daemon._setting = replace(product.daemon._setting, load_configuration=load)
        product.daemon.reload()
        assert await told() == expected
    await product.stop()


@in_virtual_time
async def test_a_section_of_the_configuration_that_names_no_gpu(tmp_path: Path) -> None:
    options = {"accept_risk": True}
    named = {PciAddress.parse(text): options for text in ("01:00.0", "01:00.1", "09:00.0")}
    product = await Product(await single_nvidia(), tmp_path, Configuration(gpus=named)).start()
    told: list[dict[str, Variant]] = await product.call("Diagnose")
    sibling, nobody = [each for each in told if each["check"].value == "section"]
    assert {each["severity"].value for each in (sibling, nobody)} == {"warning"}
    assert '[gpu."0000:01:00.1"] of the configuration sets nothing' in sibling["what"].value
    assert 'Call it [gpu."0000:01:00.0"]' in sibling["remedy"].value
    assert '[gpu."0000:09:00.0"]' in nobody["what"].value
    assert nobody["evidence"].value.startswith("GPUs here: 0000:01:00.0: NVIDIA ")
    await product.stop()


def test_without_a_display_manager_nobody_promises_that_the_desktop_comes_back() -> None:
    world = world_of(single_nvidia)
    without = replace(world, display_manager=None)
    said = [finding.what for one in (world, without) for finding in found(one) if finding.check == "layout"]
    assert said == [
        "One GPU: the desktop ends when it is lent, and comes back with it.",
        "One GPU: the desktop ends when it is lent, and no display manager starts it again.",
    ]
