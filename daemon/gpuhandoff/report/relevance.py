"""Which lines of the kernel's log matter: those about the GPUs, their drivers, vfio, the IOMMU, and tasks that hang."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from gpuhandoff.model.world import Gpu

ALWAYS = (
    "vfio",
    "iommu",
    "dmar",
    "amd-vi",
    "hung_task",
    "blocked for more than",
    "nvrm",
    "nvidia",
    "nouveau",
    "amdgpu",
    "radeon",
    "i915",
    "xe",
    "drm",
    "snd_hda_intel",
    "simple-framebuffer",
    "efifb",
    "vesafb",
    "fbcon",
    "kvm",
    "gpuhandoff",
)
"""Whatever drivers are bound now: the one that matters may be gone."""


def relevance(gpus: Iterable[Gpu]) -> Callable[[str], bool]:
    """Return what tells whether a line matters on a machine with these GPUs."""
    words = set(ALWAYS)
    for gpu in gpus:
        for function in (*gpu.functions, *gpu.group):
            words |= {str(function.address), function.driver or "", function.module or ""}
        words.add(str(gpu.upstream_port or ""))
    any_of_them = "|".join(re.escape(word) for word in sorted(words) if word)
    found = re.compile(rf"(?<![a-z])(?:{any_of_them})(?![a-z])", re.IGNORECASE)
    return lambda text: found.search(text) is not None
