"""Nobody has the GPU open any more. An unbind under somebody's hands may never return (kernel.md 1.4)."""

from __future__ import annotations

import logging
from functools import partial

from gpuhandoff.errors import InUseError
from gpuhandoff.host import Host, OpenNode
from gpuhandoff.model.plan import Json
from gpuhandoff.model.roles import is_vital
from gpuhandoff.steps.holders import end, follows, name_open, wait_free

AFTERWARDS = 2.0
"""Seconds for logind to let go of a node that it had open for somebody who has just ended (kernel.md 11)."""

log = logging.getLogger(__name__)


class SettleHolders:
    """Waits; ends processes only where the caller allowed it. What it ended stays ended."""

    name = "settle-holders"
    needs_gpu = False
    has_undo = False
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Nothing that could be brought back is lost."""
        return {}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Wait, end what may be ended, wait again; raises InUseError naming who is left."""
        nodes = list(arguments["nodes"])
        counts = partial(_counts, host)
        holding = await wait_free(host, nodes, timeout=float(arguments["grace"]), of=counts)
        if holding and arguments["terminate"]:
            log.info("ending who has the GPU open: %s", name_open(holding))
            await end(host, [one.process for one in holding])
            holding = await wait_free(host, nodes, timeout=AFTERWARDS, of=counts)
            if any(is_vital(one.process) for one in holding):
                raise InUseError(f"The GPU is in use by what is never ended: {name_open(holding)}.")
            if holding:
                raise InUseError(
                    f"The GPU is still in use, although all who had it open were told to end: {name_open(holding)}."
                )
        if holding:
            raise InUseError(
                f"The GPU is in use: {name_open(holding)}. "
                "Close it, or allow it to be ended with the option holders=terminate."
            )

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Nothing to bring back."""

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether nobody has the nodes open."""
        return not any(_counts(host, one) for one in await host.processes.holding(list(arguments["nodes"])))


def _counts(host: Host, one: OpenNode) -> bool:
    return not follows(host, one)
