"""Services that keep the GPU open for its own sake, nvidia-persistenced before all."""

from __future__ import annotations

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json

TIMEOUT = 30.0
"""Seconds for one unit."""


class StopGpuServices:
    """Stops those that run, and starts exactly those again."""

    name = "stop-gpu-services"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember which of the units run; the others may be stopped for a GPU that is away (`baseline`)."""
        running, idle = [], []
        for name in arguments["units"]:
            unit = await host.units.unit(str(name))
            if unit is not None and unit.is_active:
                running.append(unit.name)
            else:
                idle.append(str(name))
        return {"running": running, "idle": idle}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Stop them."""
        for name in saved["running"]:
            await host.units.stop(name, timeout=TIMEOUT)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Start them in reverse; five handovers use up nvidia-powerd's start limit (peers' pain 34)."""
        for name in reversed(saved["running"]):
            unit = await host.units.unit(name)
            if unit is None or unit.active_state != "active" or unit.is_stopping:
                await host.units.reset_failed(name)
                await host.units.start(name, timeout=TIMEOUT)
                unit = await host.units.unit(name)
                if unit is not None and not unit.is_active:
                    raise RolledBackError(f"{name} does not run, although systemd says that it was started.")

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether all of them are stopped."""
        for name in saved["running"]:
            unit = await host.units.unit(name)
            if unit is not None and unit.is_active:
                return False
        return True
