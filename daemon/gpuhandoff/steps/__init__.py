"""The steps of a move: one file each, in one table by name and in the order of the way out."""

from __future__ import annotations

from collections.abc import Mapping

from gpuhandoff.steps.back_guest_memory import BackGuestMemory
from gpuhandoff.steps.bind_vfio import BindVfio
from gpuhandoff.steps.claim_functions import ClaimFunctions
from gpuhandoff.steps.confine_host import ConfineHost
from gpuhandoff.steps.free_memory import FreeMemory
from gpuhandoff.steps.inhibit_sleep import InhibitSleep
from gpuhandoff.steps.load_vfio import LoadVfio
from gpuhandoff.steps.quiet_host import QuietHost
from gpuhandoff.steps.release_functions import ReleaseFunctions
from gpuhandoff.steps.resize_bars import ResizeBars
from gpuhandoff.steps.settle_holders import SettleHolders
from gpuhandoff.steps.step import Step
from gpuhandoff.steps.stop_display import StopDisplay
from gpuhandoff.steps.stop_gpu_services import StopGpuServices
from gpuhandoff.steps.unbind_consoles import UnbindConsoles
from gpuhandoff.steps.unbind_framebuffers import UnbindFramebuffers
from gpuhandoff.steps.unload_driver import UnloadDriver

__all__ = ["STEPS", "Step", "make_steps"]


def make_steps() -> Mapping[str, Step]:
    """Return a set of steps. What a step holds for the daemon's life (the inhibitor) belongs to its set."""
    steps: tuple[Step, ...] = (
        InhibitSleep(),
        LoadVfio(),
        StopDisplay(),
        StopGpuServices(),
        SettleHolders(),
        ClaimFunctions(),
        UnbindConsoles(),
        UnbindFramebuffers(),
        UnloadDriver(),
        ResizeBars(),
        BindVfio(),
        ConfineHost(),
        QuietHost(),
        FreeMemory(),
        BackGuestMemory(),
        ReleaseFunctions(),
    )
    return {step.name: step for step in steps}


STEPS = make_steps()
"""A set for looking names up; a daemon makes its own."""
