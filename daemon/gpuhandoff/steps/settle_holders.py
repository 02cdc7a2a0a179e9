"""Step 4: nobody has the GPU open any more. An unbind under somebody's hands may never return (kernel.md 1.4)."""

from __future__ import annotations

from gpuhandoff.errors import InUseError
from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.steps.holders import end, name_open, wait_free


class SettleHolders:
    """Waits; ends processes only where the caller allowed it. What it ended stays ended."""

    name = "settle-holders"
    needs_gpu = False
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Nothing that could be brought back is lost."""
        return {}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Wait, end what may be ended, wait again; raises InUseError naming who is left."""
        nodes = list(arguments["nodes"])
        if arguments["terminate"]:
            await end(host, [one.process for one in await host.processes.holding(nodes)])
        holding = await wait_free(host, nodes, timeout=float(arguments["grace"]))
        if holding:
            hint = "" if arguments["terminate"] else " Close it, or allow it to be ended with the option holders=terminate."
            raise InUseError(f"The GPU is in use: {name_open(holding)}.{hint}")

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Nothing to bring back."""

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether nobody has the nodes open."""
        return not await host.processes.holding(list(arguments["nodes"]))
