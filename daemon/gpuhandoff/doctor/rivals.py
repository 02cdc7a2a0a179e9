"""Others who bind these GPUs to vfio-pci: two who do so get in each other's way."""

from __future__ import annotations

from collections.abc import Iterator

from gpuhandoff.doctor.finding import Finding, Severity
from gpuhandoff.doctor.remedies import remove_parameter, then_renew_initramfs
from gpuhandoff.model.surroundings import Means, Rival, Surroundings
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.plan.stacks import stack_of


def of_rivals(world: World, surroundings: Surroundings) -> Iterator[Finding]:
    """Yield those that concern a GPU of this machine."""
    for rival in surroundings.rivals:
        hit = [gpu for gpu in world.gpus if _concerns(rival, gpu)]
        if rival.means is Means.SUPERGFXCTL:
            yield Finding(
                Severity.PROBLEM,
                "supergfxctl",
                "supergfxctl is to move GPUs as well. Two who do so get in each other's way.",
                f"{rival.path}: {rival.line}",
                "`supergfxctl --mode Hybrid`, and set vfio_enable to false in that file, or remove supergfxctl.",
            )
        elif rival.means is Means.INITRAMFS:
            yield _early(rival, surroundings)
        elif hit:
            yield _bound(rival, hit, surroundings)


def _concerns(rival: Rival, gpu: Gpu) -> bool:
    match rival.means:
        case Means.MODPROBE | Means.COMMAND_LINE:
            return any(f"{one.vendor:04x}:{one.device:04x}" in rival.subject for one in gpu.functions)
        case Means.DRIVERCTL:
            return any(str(one.address) in rival.subject for one in gpu.functions)
        case Means.BLACKLIST:
            modules = {*stack_of(gpu.display.driver), gpu.display.module}
            return any(name in modules for name in rival.subject)
    return False


def _early(rival: Rival, surroundings: Surroundings) -> Finding:
    return Finding(
        Severity.NOTE,
        "initramfs",
        "vfio-pci is loaded before the drivers of the host. gpuhandoff does not need that.",
        f"{rival.path}: {rival.line}",
        f"Harmless without device ids; else remove it there{then_renew_initramfs(surroundings.distribution)}.",
    )


def _bound(rival: Rival, hit: list[Gpu], surroundings: Surroundings) -> Finding:
    names = " and ".join(dict.fromkeys(gpu.name for gpu in hit))
    twice = " The ids name a model, and so both cards: the one with your desktop as well." if len(hit) > 1 else ""
    gpu = str(hit[0].address) if len(hit) == 1 else ""
    where = f"{rival.path}: {rival.line}"
    match rival.means:
        case Means.COMMAND_LINE:
            what = f"{names} may go to vfio-pci at boot, and not to the host.{twice}"
            remedy = remove_parameter(surroundings.distribution, rival.line)
        case Means.MODPROBE:
            what = f"{names} goes to vfio-pci whenever that is loaded, and may not come back to the host.{twice}"
            remedy = f"Remove that line{then_renew_initramfs(surroundings.distribution)} and reboot."
        case Means.DRIVERCTL:
            what = f"driverctl gives a function of {names} to another driver at boot."
            remedy = f"`sudo driverctl unset-override {rival.subject[0]}`"
        case _:
            what = f"The driver of {names} is kept from being loaded by itself, as it has to be when the card comes back."
            remedy = f"Remove that line{then_renew_initramfs(surroundings.distribution)}."
    return Finding(Severity.WARNING, str(rival.means).replace(" ", "-"), what, where, remedy, gpu)
