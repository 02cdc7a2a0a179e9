"""Everything that can be known beforehand is checked here, before the screen goes dark (promise 6)."""

from __future__ import annotations

from collections.abc import Iterable

from gpuhandoff.errors import (
    InUseError,
    InvalidArgsError,
    NeedsConsentError,
    NotIsolatedError,
    UnsupportedError,
    WrongStateError,
)
from gpuhandoff.model.hardware import Usage
from gpuhandoff.model.request import HolderPolicy, Hugepages, Options
from gpuhandoff.model.roles import is_vital
from gpuhandoff.model.world import Gpu, Holder, World
from gpuhandoff.plan.conditions import iommu_off, ungrouped, wants_direct
from gpuhandoff.plan.display import drives_display, ends_with_display, people_shown
from gpuhandoff.plan.layout import showing_now
from gpuhandoff.plan.services import concerns
from gpuhandoff.plan.stacks import can_unbind, dependent, holding_sound, shares_driver, unavailable, unbind_command

_NAMED = 5
"""A sentence names so many holders."""


def refuse_handoff(world: World, gpu: Gpu, options: Options) -> None:
    """Raise the first reason why this GPU cannot be handed off as asked; return when there is none."""
    _refuse_guest(gpu)
    _refuse_sharing(gpu)
    _refuse_isolation(world, gpu)
    _refuse_modules(world, gpu)
    _refuse_resources(world, options)
    _refuse_disks(gpu)
    _refuse_holders(world, gpu, options)
    _refuse_display(world, gpu, options)


def _refuse_guest(gpu: Gpu) -> None:
    if gpu.guest is not None:
        raise WrongStateError(
            f"{gpu.address} ({gpu.name}) is already with a virtual machine: {gpu.guest.name} "
            f"(pid {gpu.guest.pid}) has it open."
        )


def _refuse_sharing(gpu: Gpu) -> None:
    """vfio-pci takes no card with virtual functions (kernel.md 3), which guests may have."""
    if gpu.virtual_functions:
        named = ", ".join(str(address) for address in gpu.virtual_functions)
        raise UnsupportedError(
            f"{gpu.address} ({gpu.name}) is shared out as virtual functions (SR-IOV), {named}, and the kernel lends no card "
            "that has any. Shut down the guests that use them, then remove them: "
            f"`echo 0 | sudo tee {gpu.address.sysfs}/sriov_numvfs`."
        )


def _refuse_isolation(world: World, gpu: Gpu) -> None:
    if not world.iommu:
        why, remedy = iommu_off(world)
        raise NotIsolatedError(f"The IOMMU is off, so no device can be given to a virtual machine safely. {why} {remedy}")
    if ungrouped(world, gpu):
        raise NotIsolatedError(f"The kernel has put {gpu.address} ({gpu.name}) in no IOMMU group.")
    if gpu.breakers:
        names = ", ".join(f"{function.address} (driver {function.driver})" for function in gpu.breakers)
        stays, them = ("stays", "that device") if len(gpu.breakers) == 1 else ("stay", "those devices")
        raise NotIsolatedError(
            f"{gpu.address} ({gpu.name}) shares its IOMMU group {gpu.display.iommu_group} with {names}, which {stays} "
            f"with the host. Move the card to another slot, or unbind {them} first."
        )

    _refuse_regions(world, gpu)


def _refuse_regions(world: World, gpu: Gpu) -> None:
    """VFIO does not take a group whose firmware insists on addresses of its own; the guest would fail to start."""
    if wants_direct(world, gpu):
        raise UnsupportedError(
            f"The firmware has reserved memory for {gpu.address} ({gpu.name}) that has to stay mapped, and the kernel "
            f"{world.kernel_release} gives no such device to a virtual machine. Look for an update of the firmware, of the "
            "mainboard and of the card, or for a setting there such as pre-boot DMA protection."
        )


def _refuse_modules(world: World, gpu: Gpu) -> None:
    if "vfio_pci" not in world.available_modules:
        raise UnsupportedError(
            f"The running kernel {world.kernel_release} has no vfio-pci module. After an upgrade of the kernel the "
            "modules of the old one may be gone: reboot and try again."
        )
    missing = unavailable(world, gpu)
    if missing:
        raise UnsupportedError(
            f"The module {missing[0]} is loaded, but its file for the running kernel {world.kernel_release} is gone, so "
            f"{gpu.address} could not come back. Reboot and try again."
        )
    if shares_driver(world, gpu) and not can_unbind(world, gpu):
        raise UnsupportedError(
            f"{gpu.address} shares the driver nvidia {world.nvidia_version} with another GPU: it cannot be unloaded, and "
            "this version never lets go of a single card while nvidia-drm runs with modeset=1. Use 580.105.08 or later, "
            "or modeset=0."
        )
    _refuse_dependents(world, gpu)
    _refuse_sound(world, gpu)


def _refuse_dependents(world: World, gpu: Gpu) -> None:
    """Refuse for a module of somebody else that needs the driver's: its removal would fail, with the screen dark already."""
    found = dependent(world, gpu)
    if found is not None:
        module, other = found
        raise InUseError(
            f"The module {module} of {gpu.address} ({gpu.name}) cannot be unloaded: the module {other} needs it, which does "
            f"not belong to the driver. Unload that first: modprobe -r {other}."
        )


def _refuse_sound(world: World, gpu: Gpu) -> None:
    """Refuse for a sound device that holds the driver's module: its removal would fail, with the screen dark already."""
    one = holding_sound(world, gpu)
    if one is not None:
        raise InUseError(
            f"The module {gpu.display.module} of {gpu.address} ({gpu.name}) cannot be unloaded: the sound device "
            f"{one.address}, which plays through its screens, holds it. Stop what uses sound, then unbind that device: "
            f"{unbind_command(one)}. The same with bind, or a reboot, brings the sound back."
        )


def _refuse_resources(world: World, options: Options) -> None:
    strange = options.cpus - world.online_cpus
    if strange:
        raise InvalidArgsError(f"cpus: CPU {min(strange)} is not one of this machine's online CPUs.")
    if options.hugepages is not Hugepages.NONE and not options.memory:
        raise InvalidArgsError(f"hugepages: {options.hugepages} needs the option memory to say how much.")
    if options.memory > world.memory_total:
        raise UnsupportedError(
            f"The guest is to have {_mib(options.memory)} MiB of memory; this machine has {_mib(world.memory_total)} MiB."
        )


def _refuse_holders(world: World, gpu: Gpu, options: Options) -> None:
    others = unsettled(world, gpu)
    vital = [holder for holder in others if is_vital(holder.process)]
    if vital:
        raise InUseError(
            f"{gpu.address} ({gpu.name}) is in use by {name_holders(vital)}, which is never ended: the machine cannot do "
            "without it. Whoever has sent it the card must let go first."
        )
    if others and options.holders is not HolderPolicy.TERMINATE:
        raise InUseError(
            f"{gpu.address} ({gpu.name}) is in use by {name_holders(others)}. Close that first, or allow it to be "
            "ended with the option holders=terminate."
        )


def _refuse_disks(gpu: Gpu) -> None:
    """Refuse while the host uses a disk on the card's own USB port: it would be gone, with what is not written yet."""
    for device in gpu.attached:
        for use in device.uses:
            match use.usage:
                case Usage.MOUNTED:
                    how, remedy = f"is mounted on {use.where}", "Unmount it"
                case Usage.SWAP:
                    how, remedy = f"has the swap space {use.where}", f"Switch that off (swapoff {use.where})"
                case Usage.PART:
                    how, remedy = f"is a part of {use.where}", "Stop or close that"
            raise InUseError(
                f"The USB port of {gpu.address} ({gpu.name}) goes with the card, and {device.name}, which is plugged into "
                f"it, is in use: {use.disk} {how}. What is not written to it yet would be lost. {remedy}, or plug it in "
                "elsewhere, then try again."
            )


def unsettled(world: World, gpu: Gpu) -> list[Holder]:
    """Return the holders that neither the display's end nor that of the GPU services takes away."""
    shown = drives_display(world, gpu)
    services = {unit.name for unit in world.services if concerns(unit.name, gpu)}
    return [
        holder
        for holder in gpu.holders
        if not holder.seat_service
        and not holder.follows_card
        and holder.unit not in services
        and not (shown and ends_with_display(world, gpu, holder))
    ]


def _refuse_display(world: World, gpu: Gpu, options: Options) -> None:
    if options.stop_display or not drives_display(world, gpu):
        return
    users = sorted(people_shown(world, gpu).values())
    whose = f"the graphical session of {', '.join(users)} ends" if users else "the login screen goes"
    if gpu in showing_now(world):
        why, instead = "shows the desktop", ""
    else:
        why, instead = (
            "is held open by the desktop, whose picture is on another card",
            " `gpuhandoff doctor` says how to avoid that.",
        )
    raise NeedsConsentError(
        f"{gpu.address} ({gpu.name}) {why}: handing it off means that {whose}. Save your work, then allow it with the "
        f"option stop-display.{instead}"
    )


def refuse_others(world: World, gpu: Gpu, only_user: int | None) -> None:
    """Raise NeedsConsentError when somebody's desktop would end about whom nobody was asked: they logged in meanwhile."""
    others = [user for uid, user in people_shown(world, gpu).items() if uid != only_user]
    if only_user is not None and others:
        raise NeedsConsentError(
            f"{gpu.address} ({gpu.name}) now shows the desktop of {', '.join(sorted(others))} as well, whom this was not "
            "allowed for. Ask again: it takes another permission."
        )


def name_holders(holders: Iterable[Holder]) -> str:
    """Return the first holders in words."""
    listed = list(holders)
    named = ", ".join(f"{holder.process.name} (pid {holder.process.pid})" for holder in listed[:_NAMED])
    return named + (f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else "")


def _mib(size: int) -> int:
    return size >> 20
