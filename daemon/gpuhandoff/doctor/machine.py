"""What concerns all GPUs: the IOMMU, vfio, the kernel's parameters, the layout."""

from __future__ import annotations

from collections.abc import Iterator

from gpuhandoff.doctor.finding import Finding, Severity
from gpuhandoff.doctor.remedies import add_parameter, remove_parameter
from gpuhandoff.model.hardware import Firmware
from gpuhandoff.model.surroundings import Distribution
from gpuhandoff.model.world import World
from gpuhandoff.plan.conditions import iommu_off, off_parameter
from gpuhandoff.plan.layout import LayoutKind, layout_of

ACS_OVERRIDE = "pcie_acs_override="


def of_machine(world: World, distribution: Distribution) -> Iterator[Finding]:
    """Yield what is found."""
    yield _layout(world)
    yield _iommu(world, distribution)
    yield _vfio(world)
    for word in world.boot_parameters:
        if word.startswith(ACS_OVERRIDE):
            yield Finding(
                Severity.WARNING,
                "acs-override",
                "The IOMMU groups are not what the hardware isolates: a guest's devices may reach others past the IOMMU.",
                f"The kernel command line says {word}.",
                f"If you do not need it: {remove_parameter(distribution, word)}",
            )
        elif word == "nomodeset":
            yield Finding(
                Severity.WARNING,
                "nomodeset",
                "The drivers of the GPUs are kept from showing a picture, so none will come back with one.",
                "The kernel command line says nomodeset.",
                remove_parameter(distribution, word),
            )


def _layout(world: World) -> Finding:
    layout = layout_of(world)
    back = "comes back with it" if world.display_manager is not None else "no display manager starts it again"
    words = {
        LayoutKind.SINGLE: f"One GPU: the desktop ends when it is lent, and {back}.",
        LayoutKind.HYBRID: "The processor's graphics show the desktop, which stays while the other card is lent.",
        LayoutKind.MULTI: "Several GPUs.",
        LayoutKind.HEADLESS: "No desktop.",
    }
    return Finding(Severity.NOTE, "layout", words[layout.kind], layout.reason)


def _iommu(world: World, distribution: Distribution) -> Finding:
    if world.iommu:
        kind = {Firmware.INTEL: "VT-d", Firmware.AMD: "AMD-Vi"}.get(world.iommu_firmware, "an IOMMU")
        return Finding(Severity.FINE, "iommu", f"The IOMMU ({kind}) is on.")
    why, remedy = iommu_off(world)
    off = off_parameter(world)
    if off is not None:
        remedy = remove_parameter(distribution, off)
    elif world.iommu_firmware is Firmware.INTEL:
        remedy = add_parameter(distribution, "intel_iommu=on")
    return Finding(Severity.PROBLEM, "iommu", "The IOMMU is off: no GPU can be lent.", why, remedy)


def _vfio(world: World) -> Finding:
    if "vfio_pci" not in world.available_modules:
        return Finding(
            Severity.PROBLEM,
            "vfio",
            "The running kernel has no vfio-pci.",
            f"/lib/modules/{world.kernel_release} does not list it, which is so after an upgrade of the kernel.",
            "Reboot into the kernel that is installed.",
        )
    where = "is a part of the kernel" if "vfio_pci" in world.builtin_modules else "is a module"
    return Finding(Severity.FINE, "vfio", f"vfio-pci is there for kernel {world.kernel_release}.", f"It {where}.")
