"""What concerns one GPU: its group, its driver, who uses it, and whether it comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gpuhandoff.doctor.finding import Finding, Severity
from gpuhandoff.model.verdict import NO_SOURCE, Kind, Verdict
from gpuhandoff.model.world import Gpu, State, World
from gpuhandoff.plan.conditions import ungrouped, wants_direct
from gpuhandoff.plan.display import drives_display
from gpuhandoff.plan.layout import is_integrated, showing_now
from gpuhandoff.plan.refusal import name_holders, unsettled
from gpuhandoff.plan.stacks import can_unbind, dependent, holding_sound, shares_driver, unavailable, unbind_command

CONTROLLER_3D = 0x0302
"""Class of a GPU that shows no picture itself (kernel.md 2)."""


def of_card(world: World, gpu: Gpu, verdict: Verdict, state: State, reason: str) -> Iterator[Finding]:
    """Yield what is found of one GPU, which is in this state for this reason.

    That a processor's graphics cannot be lent, or not be had back, is no more than a note where there is another card.
    """
    spare = is_integrated(gpu) and len(world.gpus) > 1
    for finding in _of_card(world, gpu, verdict, state, reason):
        milder = spare and finding.check != "state" and finding.severity in {Severity.PROBLEM, Severity.WARNING}
        yield replace(finding, severity=Severity.NOTE) if milder else finding


def _of_card(world: World, gpu: Gpu, verdict: Verdict, state: State, reason: str) -> Iterator[Finding]:
    address = str(gpu.address)
    if state is State.STUCK:
        yield Finding(Severity.PROBLEM, "state", f"{gpu.name} is stuck.", reason, gpu=address)
    elif state is State.FOREIGN:
        remedy = f"`gpuhandoff reclaim {address}` brings it to its driver."
        what = "was moved by somebody else" if gpu.display.driver else "is without a driver"
        yield Finding(Severity.WARNING, "state", f"{gpu.name} {what}.", reason, remedy, address)
    yield from _group(world, gpu)
    yield from _driver(world, gpu)
    yield from _holders(world, gpu)
    yield from _reset(gpu, verdict)
    if gpu.display.pci_class >> 8 == CONTROLLER_3D:
        yield Finding(
            Severity.NOTE,
            "outputs",
            f"{gpu.name} has no outputs: a guest shows its picture through a virtual screen only.",
            "It is a 3D controller (class 0302), whose picture goes through the other GPU.",
            gpu=address,
        )


def _group(world: World, gpu: Gpu) -> Iterator[Finding]:
    address = str(gpu.address)
    if gpu.virtual_functions:
        yield Finding(
            Severity.PROBLEM,
            "sharing",
            f"{gpu.name} cannot be lent: it is shared out as virtual functions (SR-IOV).",
            ", ".join(str(one) for one in gpu.virtual_functions),
            f"Shut down the guests that use them, then `echo 0 | sudo tee {gpu.address.sysfs}/sriov_numvfs`.",
            address,
        )
    without = ungrouped(world, gpu)
    if without:
        yield Finding(
            Severity.PROBLEM,
            "group",
            f"{gpu.name} cannot be lent: the kernel has put it in no IOMMU group.",
            f"Without a group: {', '.join(str(one.address) for one in without)}",
            "Put the card into another slot, and look for an update of the mainboard's firmware.",
            address,
        )
    elif gpu.breakers:
        names = ", ".join(f"{one.address} ({one.kind}, {one.driver})" for one in gpu.breakers)
        yield Finding(
            Severity.PROBLEM,
            "group",
            f"{gpu.name} cannot be lent: it shares its IOMMU group with devices that the host keeps.",
            f"Group {_numbers(gpu)}: {names}",
            "Put the card into a slot that is connected to the processor, or unbind those devices if you do not need them.",
            address,
        )
    elif world.iommu and gpu.groups:
        members = f"{len(gpu.functions)} function{'s' * (len(gpu.functions) > 1)}" + (
            f" and {len(gpu.ports)} bridge{'s' * (len(gpu.ports) > 1)}, which may stay" if gpu.ports else ""
        )
        yield Finding(Severity.FINE, "group", f"{gpu.name} is isolated.", f"Group {_numbers(gpu)}: {members}.", gpu=address)
    if wants_direct(world, gpu):
        yield Finding(
            Severity.PROBLEM,
            "reserved",
            f"{gpu.name} cannot be lent: the firmware has reserved memory for it that has to stay mapped.",
            ", ".join(f"{one.start:#x}-{one.end:#x} {one.kind}" for one in gpu.reserved if one.kind == "direct"),
            "Look for an update of the firmware, of the mainboard and of the card.",
            address,
        )


def _driver(world: World, gpu: Gpu) -> Iterator[Finding]:
    address = str(gpu.address)
    shared = shares_driver(world, gpu)
    if shared and not can_unbind(world, gpu):
        yield Finding(
            Severity.PROBLEM,
            "driver",
            f"{gpu.name} cannot be lent: another card uses the same driver, which does not let go of one alone.",
            f"NVIDIA {world.nvidia_version} with modeset=1 in nvidia-drm.",
            "Use NVIDIA 580.105.08 or later, or set modeset=0 for nvidia-drm.",
            address,
        )
        return
    missing = unavailable(world, gpu)
    if missing:
        yield Finding(
            Severity.PROBLEM,
            "driver",
            f"{gpu.name} could not come back: its driver cannot be loaded again.",
            f"{', '.join(missing)}: the file for the running kernel {world.kernel_release} is gone.",
            "Reboot into the kernel that is installed.",
            address,
        )
    yield from _pinned(world, gpu)
    if shared:
        yield Finding(
            Severity.NOTE,
            "driver",
            f"{gpu.name} shares its driver with another card: it is unbound instead of unloaded, when nobody uses it.",
            f"Both are with {gpu.display.driver}.",
            gpu=address,
        )


def _pinned(world: World, gpu: Gpu) -> Iterator[Finding]:
    """Yield who keeps the driver's modules from being unloaded, other than programs."""
    what = f"{gpu.name} cannot be lent: its driver cannot be unloaded."
    found = dependent(world, gpu)
    if found is not None:
        module, other = found
        yield Finding(
            Severity.PROBLEM,
            "driver",
            what,
            f"The module {other}, which does not belong to the driver, needs {module}.",
            f"Unload it before a guest has the card: `sudo modprobe -r {other}`",
            str(gpu.address),
        )
    sound = holding_sound(world, gpu)
    if sound is not None:
        yield Finding(
            Severity.PROBLEM,
            "driver",
            what,
            f"The sound device {sound.address}, which plays through its screens, holds the module {gpu.display.module}.",
            f"Before a guest has the card, stop what uses sound and unbind that device: {unbind_command(sound)}",
            str(gpu.address),
        )


def _holders(world: World, gpu: Gpu) -> Iterator[Finding]:
    address = str(gpu.address)
    if gpu.guest is not None:
        what = f"{gpu.name} is with a guest."
        yield Finding(Severity.NOTE, "holders", what, f"{gpu.guest.name} (pid {gpu.guest.pid})", gpu=address)
        return
    used = [f"{device.name}: {use.disk} ({use.usage}: {use.where})" for device in gpu.attached for use in device.uses]
    if used:
        yield Finding(
            Severity.WARNING,
            "disk",
            f"{gpu.name} cannot be lent now: the host uses a disk at the card's own USB port, which goes with it.",
            "; ".join(used),
            "Stop using it, or plug it in elsewhere.",
            address,
        )
    others = unsettled(world, gpu)
    if others:
        yield Finding(
            Severity.WARNING,
            "holders",
            f"{gpu.name} is in use by programs that would have to be closed.",
            f"{name_holders(others)}",
            "Close them, or let them be ended: --terminate-holders.",
            address,
        )
    if drives_display(world, gpu) and gpu in showing_now(world):
        yield Finding(
            Severity.NOTE,
            "desktop",
            f"{gpu.name} shows the desktop, which ends when it is lent.",
            remedy="Save your work first; consent is given with --stop-display.",
            gpu=address,
        )


_SEVERITIES = {
    Kind.SAFE: Severity.FINE,
    Kind.UNKNOWN: Severity.NOTE,
    Kind.CAUTION: Severity.WARNING,
    Kind.NEEDS_VENDOR_RESET: Severity.WARNING,
    Kind.ONCE_PER_BOOT: Severity.WARNING,
    Kind.BROKEN: Severity.PROBLEM,
}
_MEANS = {
    Kind.SAFE: "comes back from a guest",
    Kind.UNKNOWN: "may come back from a guest or not: nobody has said",
    Kind.CAUTION: "may not come back from a guest",
    Kind.NEEDS_VENDOR_RESET: "needs vendor-reset to come back from a guest",
    Kind.ONCE_PER_BOOT: "serves one guest a boot, and perhaps does not come back from it",
    Kind.BROKEN: "does not come back from a guest before a reboot",
}


def _reset(gpu: Gpu, verdict: Verdict) -> Iterator[Finding]:
    severity = _SEVERITIES[verdict.kind]
    what = f"{gpu.name} {_MEANS[verdict.kind]}."
    if verdict.leaving:
        what = f"{gpu.name} may hang the machine on its way to a guest."
    elif not verdict.needed and severity is not Severity.FINE:
        what += " That matters only if you take it back: the desktop does not need it."
        severity = Severity.NOTE
    methods = ", ".join(gpu.display.reset_methods) or "none"
    remedy = _remedy(gpu, verdict)
    source = "" if verdict.source == NO_SOURCE else f" Source: {verdict.source}."
    evidence = f"{verdict.reason} Resets that the kernel lists: {methods}.{source}"
    yield Finding(severity, "reset", what, evidence, remedy, str(gpu.address))


def _remedy(gpu: Gpu, verdict: Verdict) -> str:
    if verdict.by_kernel:
        return "Boot another kernel, or accept it: --accept-risk." if verdict.refuses else "Boot another kernel."
    if verdict.kind is Kind.NEEDS_VENDOR_RESET:
        path = f"{gpu.address.sysfs}/reset_method"
        return (
            "Install https://github.com/gnif/vendor-reset, `sudo modprobe vendor-reset`, then "
            f"`echo device_specific | sudo tee {path}`, before the first guest."
        )
    if verdict.refuses:
        return "Reboot before the next guest, or accept it: --accept-risk." if verdict.runs else "Accept it: --accept-risk."
    if verdict.kind is Kind.ONCE_PER_BOOT:
        return "Plan one guest a boot. If it does come back after a second one, that is remembered."
    return ""


def _numbers(gpu: Gpu) -> str:
    return ", ".join(str(number) for number in gpu.groups)
