"""Which kernel modules stand behind a display driver, in the order in which they can be removed.

Driver name and module name differ (kernel.md 1.1). drm and drm_kms_helper are never in a stack: other GPUs live on
them. A PCI driver that is not in the table is unbound, never unloaded: nobody knows what else it serves.
"""

from __future__ import annotations

import re

from gpuhandoff.model.world import Function, Gpu, World

STACKS: dict[str, tuple[str, ...]] = {
    "nvidia": ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia"),
    "nouveau": ("nouveau",),
    "amdgpu": ("amdgpu",),
    "radeon": ("radeon",),
    "i915": ("i915",),
    "xe": ("xe",),
    "bochs-drm": ("bochs",),
    "cirrus": ("cirrus",),
    "cirrus-qemu": ("cirrus_qemu",),
    "virtio-pci": ("virtio_gpu",),
}
"""By PCI driver. virtio-pci itself serves disks and networks and is often built in; the GPU's module sits on its child."""

_PINNED_BY_SOUND = frozenset({"i915", "xe"})
"""Modules that sound devices hold for as long as they are bound (hdac_component_master_bind, kernel.md 1.3)."""

NVIDIA_LETS_GO = (580, 105, 8)
"""From this version on nvidia-drm lets go of a card that is unbound (kernel.md 1.4)."""


def stack_of(driver: str | None) -> tuple[str, ...]:
    """Return the modules behind a PCI driver in order of removal; empty when it has to be unbound instead."""
    return STACKS.get(driver or "", ())


def shares_driver(world: World, gpu: Gpu) -> bool:
    """Tell whether another GPU, which stays, runs on the same driver."""
    driver = gpu.display.driver
    return driver is not None and any(
        other.address != gpu.address and other.display.driver == driver for other in world.gpus
    )


def can_unbind(world: World, gpu: Gpu) -> bool:
    """Tell whether the display driver can be unbound from one card while its modules stay.

    nvidia-drm with modeset holds every card itself; older drivers then wait for it, for ever (kernel.md fact 11).
    """
    if gpu.display.driver != "nvidia" or not world.nvidia_modeset:
        return True
    version = tuple(int(number) for number in re.findall(r"\d+", world.nvidia_version))
    return version >= NVIDIA_LETS_GO


def unavailable(world: World, gpu: Gpu) -> tuple[str, ...]:
    """Return those modules of the driver that are to be removed and could not be loaded again."""
    if shares_driver(world, gpu):
        return ()
    return tuple(name for name in loaded_stack(world, gpu) if name not in world.available_modules)


def dependent(world: World, gpu: Gpu) -> tuple[str, str] | None:
    """Return a module of the driver that is to be removed and cannot be, and that of somebody else which needs it."""
    if shares_driver(world, gpu):
        return None
    stack = loaded_stack(world, gpu)
    for module in world.modules:
        others = [user for user in module.used_by if user not in stack and not user.startswith("[")]
        if module.name in stack and others:
            return module.name, others[0]
    return None


def holding_sound(world: World, gpu: Gpu) -> Function | None:
    """Return a sound device that plays through the card's outputs and keeps the driver's module from being removed."""
    if shares_driver(world, gpu) or _PINNED_BY_SOUND.isdisjoint(loaded_stack(world, gpu)):
        return None
    return next((one for one in gpu.audio if native(one)), None)


def unbind_command(function: Function) -> str:
    """Return what a person types to take a function from its driver."""
    return f"`echo {function.address} | sudo tee /sys/bus/pci/drivers/{function.driver}/unbind`"


def loaded_stack(world: World, gpu: Gpu) -> tuple[str, ...]:
    """Return those modules of the GPU's stack that are loaded, in order of removal."""
    loaded = {module.name for module in world.modules}
    return tuple(name for name in stack_of(gpu.display.driver) if name in loaded)


def native(function: Function) -> bool:
    """Tell whether a driver of the host is bound."""
    return function.driver not in {None, "vfio-pci"}
