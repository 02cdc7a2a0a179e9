"""Which GPU services stop for a card."""

from __future__ import annotations

from collections.abc import Collection

from gpuhandoff.model.plan import PlannedStep
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.plan.stacks import native

_NVIDIA = "nvidia-"
"""Begins the names of the services that come with NVIDIA's driver (nvidia-persistenced, nvidia-powerd)."""


def concerns(unit: str, gpu: Gpu) -> bool:
    """Tell whether a service has to do with a card on a driver of the host: NVIDIA's with NVIDIA's, others with every."""
    return native(gpu.display) and (gpu.display.driver == "nvidia" or not unit.startswith(_NVIDIA))


def stop_services(world: World, gpu: Gpu, stopped: Collection[str]) -> PlannedStep | None:
    """Return the step that stops those that run. `stopped`: those that other GPUs, which are away, will start again.

    These are to stay stopped for this GPU as well: whichever comes back last starts them.
    """
    running = [unit.name for unit in world.services if unit.is_active and concerns(unit.name, gpu)]
    kept = sorted(name for name in stopped if concerns(name, gpu) and name not in running)
    if not running and not kept:
        return None
    does = [f"stop {', '.join(running)}"] * bool(running) + [f"keep {', '.join(kept)} stopped"] * bool(kept)
    return PlannedStep("stop-gpu-services", {"units": [*running, *kept]}, ", ".join(does))
