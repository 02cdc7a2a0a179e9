"""Which resets a card really has in this machine."""

from __future__ import annotations

from gpuhandoff.model.world import Gpu, World

VENDOR_RESET = "vendor_reset"
"""The module's name in /proc/modules."""
_OWN = ("device_specific", "flr", "af_flr", "acpi")
"""Methods that reset one function and nothing else. `pm` resets nothing on a graphics card (kernel.md 4.1)."""


def has_own_reset(gpu: Gpu) -> bool:
    """Tell whether the display function can be reset by itself.

    A `bus` does not count: it is detected before the card's other functions are, and fails once they are there
    (kernel.md fact 10).
    """
    return any(method in _OWN for method in gpu.display.reset_methods)


def has_slot_reset(gpu: Gpu) -> bool:
    """Tell whether VFIO can reset the card by its slot: there is a port above it, and nobody else below that port."""
    return gpu.upstream_port is not None and not gpu.group


def vendor_reset_loaded(world: World) -> bool:
    """Tell whether the module is there."""
    return any(module.name == VENDOR_RESET for module in world.modules)


def vendor_reset_in_effect(world: World, gpu: Gpu) -> bool:
    """Tell whether the kernel would use it: loaded is not enough, its method has to be the first (kernel.md 4.4)."""
    return vendor_reset_loaded(world) and gpu.display.reset_methods[:1] == ("device_specific",)
