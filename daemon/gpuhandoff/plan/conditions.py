"""What the machine itself allows, before anything is asked of it: the IOMMU, and what the firmware insists on."""

from __future__ import annotations

import re

from gpuhandoff.model.hardware import Firmware
from gpuhandoff.model.world import Function, Gpu, World

STRICT = (6, 10)
"""From this kernel on reserved regions were reported to shut VFIO out (kernel.md 3)."""
_OFF = re.compile(r"(?:intel_iommu|amd_iommu|iommu)=(?:\S*,)?off(?:,\S*)?")


def off_parameter(world: World) -> str | None:
    """Return the boot parameter that switches the IOMMU off, if there is one."""
    return next((one for one in world.boot_parameters if _OFF.fullmatch(one)), None)


def iommu_off(world: World) -> tuple[str, str]:
    """Return why there are no IOMMU groups, and what to do: two sentences."""
    off = off_parameter(world)
    if off is not None:
        return f"The kernel command line says {off}.", "Remove that and reboot."
    match world.iommu_firmware:
        case Firmware.INTEL:
            return (
                "The firmware has it on (VT-d), the kernel does not use it.",
                "Add intel_iommu=on to the kernel command line and reboot.",
            )
        case Firmware.AMD:
            return (
                "The firmware has it on (AMD-Vi), the kernel does not use it.",
                "Look for AMD-Vi in the kernel's log; it tells why.",
            )
    return (
        "The firmware does not offer one.",
        "Switch VT-d or AMD-Vi on in its setup; on Intel, also add intel_iommu=on to the kernel command line.",
    )


def ungrouped(world: World, gpu: Gpu) -> tuple[Function, ...]:
    """Return those functions of a card that no guest can have: the kernel's IOMMU is on, and they are in no group."""
    return tuple(one for one in gpu.functions if one.iommu_group is None) if world.iommu else ()


def wants_direct(world: World, gpu: Gpu) -> bool:
    """Tell whether the firmware wants memory mapped for this card that a guest's owner of it would take away."""
    version = tuple(int(number) for number in re.findall(r"\d+", world.kernel_version or world.kernel_release)[:2])
    return version >= STRICT and any(region.kind == "direct" for region in gpu.reserved)
