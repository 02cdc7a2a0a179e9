"""The verdict: what is known of the card, what this machine can do, what it has shown; and when the risk is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuhandoff.config import HostSettings
from gpuhandoff.errors import NeedsConsentError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.kernel import Module
from gpuhandoff.model.request import Options
from gpuhandoff.model.verdict import Experience, Kind, Loss, Verdict
from gpuhandoff.model.world import Framebuffer, Function, Gpu, World
from gpuhandoff.plan.display import is_needed
from gpuhandoff.plan.handoff import plan_handoff
from gpuhandoff.verdict import judge
from tests.support.worlds import NETWORK_CLASS, function

CARD = PciAddress(0, 1, 0, 0)
PORT = PciAddress(0, 0, 1, 0)
KERNEL = "6.12.107+deb13-amd64"
NONE = Experience()
VENDOR_RESET = (Module("vendor_reset", 0),)


def card(vendor: int, device: int, *methods: str, driver: str = "nvidia") -> Gpu:
    """Return a card below a port of its own."""
    display = Function(CARD, vendor, device, 0x030000, driver=driver, iommu_group=14, reset_methods=methods)
    return Gpu(CARD, "a card", (display,), upstream_port=PORT)


ADA = card(0x10DE, 0x2786, "bus")
GB202 = card(0x10DE, 0x2B85, "flr", "bus")
POLARIS = card(0x1002, 0x67DF, "bus", driver="amdgpu")
NAVI_21 = card(0x1002, 0x73BF, "bus", driver="amdgpu")
UNHEARD_OF = card(0x10DE, 0xFFFE, "bus")


def world(gpu: Gpu, kernel: str = KERNEL, modules: tuple[Module, ...] = (), version: str = "") -> World:
    """Return a machine with this card only."""
    available = frozenset({"vfio_pci", "amdgpu"})
    return World("b", kernel, (gpu,), kernel_version=version, modules=modules, available_modules=available, nvidia_open=True)


def verdict(gpu: Gpu, experience: Experience = NONE, *, needed: bool = True, **more: object) -> Verdict:
    """Return the verdict on the only card of a machine."""
    return judge(world(gpu, **more), gpu, experience, needed=needed)  # type: ignore[arg-type]


def loss(run: int, kernel: str = KERNEL) -> Loss:
    """Return that the card was lost after so many guests of a boot."""
    return Loss("another", kernel, 0, run, "0000:01:00.0 is stuck at unload-driver: no driver took it. Call Reclaim again.")


def test_a_table_says_why_and_who_says_so() -> None:
    found = verdict(ADA)
    assert (found.kind, found.source) == (Kind.SAFE, "guiahardware.es")
    assert found.reason.startswith("Ada Lovelace: ")
    assert verdict(GB202).kind is Kind.ONCE_PER_BOOT
    assert verdict(NAVI_21).kind is Kind.CAUTION


def test_a_card_that_nobody_has_heard_of_is_unknown_and_says_what_the_machine_can_do() -> None:
    assert "reset of its own, which" in verdict(card(0x10DE, 0xFFFE, "flr")).reason
    assert "whole slot" in verdict(UNHEARD_OF).reason
    assert "Neither" in verdict(replace(UNHEARD_OF, upstream_port=None)).reason
    assert verdict(UNHEARD_OF).kind is Kind.UNKNOWN


def test_a_reset_of_the_slot_is_none_where_another_device_shares_it() -> None:
    stranger = function(PciAddress(0, 2, 0, 0), NETWORK_CLASS, "igc")
    assert verdict(replace(ADA, group=(stranger,))).kind is Kind.CAUTION
    own = card(0x10DE, 0x2786, "flr", "bus")
    assert verdict(replace(own, group=(stranger,))).kind is Kind.SAFE


def test_vendor_reset_counts_only_where_it_is_loaded_and_in_effect() -> None:
    absent = verdict(POLARIS)
    assert (absent.kind, "is not loaded" in absent.reason) == (Kind.NEEDS_VENDOR_RESET, True)
    idle = verdict(POLARIS, modules=VENDOR_RESET)
    assert (idle.kind, "loaded but not in effect" in idle.reason) == (Kind.NEEDS_VENDOR_RESET, True)
    assert "says bus" in idle.reason
    at_work = card(0x1002, 0x67DF, "device_specific", "bus", driver="amdgpu")
    assert verdict(at_work, modules=VENDOR_RESET).kind is Kind.SAFE
    assert verdict(at_work).kind is Kind.NEEDS_VENDOR_RESET
    second = card(0x1002, 0x67DF, "bus", "device_specific", driver="amdgpu")
    assert verdict(second, modules=VENDOR_RESET).kind is Kind.NEEDS_VENDOR_RESET


@pytest.mark.parametrize(("kernel", "version"), [("6.12.24", ""), ("6.1.0-33-amd64", "6.1.134"), ("6.14.2-zen1", "6.14.2")])
def test_a_kernel_that_lost_the_reset_of_slots(kernel: str, version: str) -> None:
    found = verdict(ADA, kernel=kernel, version=version)
    assert found.kind is Kind.ONCE_PER_BOOT
    assert "zen-kernel" in found.source
    assert verdict(card(0x10DE, 0x2786, "flr"), kernel=kernel, version=version).kind is Kind.SAFE


def test_a_bad_kernel_does_not_hide_what_is_known_of_the_card() -> None:
    found = verdict(POLARIS, kernel="6.12.24")
    assert found.kind is Kind.ONCE_PER_BOOT
    assert "lost the reset" in found.reason
    assert "vendor-reset is not loaded" in found.reason
    assert "zen-kernel" in found.source
    assert "gnif/vendor-reset" in found.source
    assert "No report" not in verdict(UNHEARD_OF, kernel="6.12.24").reason


def test_what_is_known_of_a_kernel_is_said_where_the_card_is_as_bad() -> None:
    navi_48, bad = card(0x1002, 0x7550, "bus", driver="amdgpu"), "7.2.2-1-cachyos"
    found = verdict(navi_48, kernel=bad)
    assert (found.kind, found.by_kernel, found.leaving) == (Kind.ONCE_PER_BOOT, False, False)
    assert found.reason.startswith("Navi 48: ")
    assert found.reason.endswith("vfio-pci was seen to crash as it let go of a card.")
    assert "mroboff/vm-curator#60; CachyOS/linux-cachyos#1023" in found.source
    assert "crash" in verdict(NAVI_21, kernel=bad).reason
    lost = verdict(NAVI_21, Experience(loss=loss(1)), kernel=bad)
    assert lost.reason.startswith("On this machine the card did not come back")
    assert "crash" in lost.reason
    assert lost.source == "this machine; CachyOS/linux-cachyos#1023"
    assert "crash" not in verdict(navi_48, Experience(kernels=frozenset({bad})), kernel=bad).reason


def test_a_kernel_that_hangs_on_the_way_out_does_so_also_for_a_card_that_was_lost() -> None:
    found = verdict(NAVI_21, Experience(loss=loss(1)), kernel="6.12.70", needed=False)
    assert (found.kind, found.leaving, found.by_kernel, found.refuses) == (Kind.BROKEN, True, True, True)


def test_a_kernel_on_which_amdgpu_hangs_is_a_risk_before_the_first_guest() -> None:
    found = verdict(NAVI_21, kernel="6.12.70", needed=False)
    assert (found.kind, found.leaving, found.by_kernel, found.refuses) == (Kind.BROKEN, True, True, True)
    assert verdict(replace(NAVI_21, functions=(replace(NAVI_21.display, driver="radeon"),)), kernel="6.12.70").kind is (
        Kind.CAUTION
    )


@pytest.mark.parametrize(
    ("driver", "needed", "dark"),
    [(None, True, True), ("pci-stub", True, True), ("nvidia", True, False), (None, False, False)],
)
def test_a_card_with_which_only_the_firmware_shows_a_picture(driver: str | None, *, needed: bool, dark: bool) -> None:
    """vfio-pci drives the firmware's picture off for good, however often the card itself came back (kernel.md fact 9)."""
    display = replace(ADA.display, driver=driver)
    picture = (Framebuffer("efi-framebuffer.0", "efi-framebuffer", platform=True),)
    gpu = replace(ADA, functions=(display,), framebuffers=picture)
    found = verdict(gpu, Experience(returns=3), needed=needed)
    assert (found.kind is Kind.BROKEN, found.refuses, "would stay dark" in found.reason) == (dark, dark, dark)
    assert verdict(replace(gpu, framebuffers=()), needed=needed).kind is Kind.SAFE  # it is dark already


def test_what_the_machine_showed_outranks_the_table() -> None:
    assert verdict(NAVI_21, Experience(returns=1, kernels=frozenset({KERNEL}))).kind is Kind.SAFE
    assert verdict(GB202, Experience(returns=1)).kind is Kind.ONCE_PER_BOOT  # once is what it can
    proven = verdict(GB202, Experience(returns=3, repeats=2))
    assert (proven.kind, proven.source) == (Kind.SAFE, "this machine")
    assert "3 times, 2 of them" in proven.reason
    lost = verdict(ADA, Experience(loss=loss(1)))
    assert (lost.kind, lost.source) == (Kind.BROKEN, "this machine")
    assert "no driver took it." in lost.reason
    assert "Call Reclaim" not in lost.reason
    assert verdict(ADA, Experience(loss=loss(2))).kind is Kind.ONCE_PER_BOOT


def test_a_loss_on_another_kernel_counts_and_says_so() -> None:
    assert "That was on kernel 6.1.0" in verdict(ADA, Experience(loss=loss(1, "6.1.0"))).reason
    assert "That was on" not in verdict(ADA, Experience(loss=loss(1))).reason


def test_what_went_well_disproves_a_kernel_only_if_it_was_this_one() -> None:
    bad = "6.12.24"
    assert verdict(ADA, Experience(returns=2, repeats=1, repeat_kernels=frozenset({bad})), kernel=bad).kind is Kind.SAFE
    assert verdict(ADA, Experience(returns=2, repeats=1, kernels=frozenset({bad})), kernel=bad).kind is Kind.ONCE_PER_BOOT
    assert verdict(ADA, Experience(returns=2, repeats=1, repeat_kernels=frozenset({KERNEL})), kernel=bad).kind is (
        Kind.ONCE_PER_BOOT
    )


@pytest.mark.parametrize(
    ("kind", "runs", "needed", "refused"),
    [
        (Kind.SAFE, 9, True, False),
        (Kind.UNKNOWN, 9, True, False),
        (Kind.CAUTION, 9, True, False),
        (Kind.ONCE_PER_BOOT, 0, True, False),
        (Kind.ONCE_PER_BOOT, 1, True, True),
        (Kind.ONCE_PER_BOOT, 1, False, True),
        (Kind.NEEDS_VENDOR_RESET, 0, True, False),
        (Kind.NEEDS_VENDOR_RESET, 1, True, True),
        (Kind.BROKEN, 0, True, True),
        (Kind.BROKEN, 0, False, False),
        (Kind.BROKEN, 1, False, True),
    ],
)
def test_what_is_refused_without_the_consent(kind: Kind, runs: int, needed: bool, refused: bool) -> None:
    found = Verdict(kind, "Because.", "somebody", runs, needed)
    machine = world(ADA)
    if refused:
        with pytest.raises(NeedsConsentError) as caught:
            plan_handoff(machine, ADA, Options(), HostSettings(), found)
        assert "option accept-risk" in caught.value.message
        assert "Because. (somebody)" in caught.value.message
    plan_handoff(machine, ADA, Options(accept_risk=refused), HostSettings(), found)


def test_the_plan_names_the_risk_unless_nobody_needs_the_card() -> None:
    def costs(found: Verdict | None) -> str:
        plan = plan_handoff(world(ADA), ADA, Options(), HostSettings(), found)
        return next(step.costs for step in plan.steps if step.name == "claim-functions")

    assert "reboot" in costs(Verdict(Kind.CAUTION, "", "", needed=True))
    assert costs(Verdict(Kind.CAUTION, "", "", needed=False)) == ""
    assert costs(Verdict(Kind.SAFE, "", "", needed=True)) == ""
    assert costs(None) == ""


def test_a_card_is_needed_where_it_is_the_only_one() -> None:
    other = replace(ADA, address=PciAddress(0, 2, 0, 0), functions=(replace(ADA.display, address=PciAddress(0, 2, 0, 0)),))
    machine = world(ADA)
    assert is_needed(machine, ADA)
    assert not is_needed(replace(machine, gpus=(ADA, other)), ADA)
