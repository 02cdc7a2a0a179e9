"""What the firmware and the boot loader decided."""

from __future__ import annotations

import re

from gpuhandoff.host import Host
from gpuhandoff.model.hardware import Firmware

TABLES = "/sys/firmware/acpi/tables"
COMMAND_LINE = "/proc/cmdline"
_CONCERNS_US = re.compile(
    r"(?:(?:intel_|amd_)?iommu(?:[.=]|$)|vfio|kvm|pci|nvidia|nouveau|amdgpu|radeon|i915|xe[.=]|drm|video=|fbcon|nomodeset"
    r"|rd\.driver|module|modprobe|initcall_blacklist|efifb|simplefb|isolcpus|nohz_full|hugepage|transparent_hugepage)",
    re.IGNORECASE,
)


def parameters(host: Host) -> tuple[str, ...]:
    """Return those of the kernel's boot parameters that matter here; the others are nobody's business."""
    try:
        words = host.kernel.read(COMMAND_LINE).split()
    except OSError:
        return ()
    return tuple(word for word in words if _CONCERNS_US.match(word))


def firmware(host: Host) -> Firmware:
    """Return which description of an IOMMU the firmware gives: it is there whether the kernel uses it or not."""
    for one in (Firmware.INTEL, Firmware.AMD):
        if host.kernel.exists(f"{TABLES}/{one.value}"):
            return one
    return Firmware.NONE
