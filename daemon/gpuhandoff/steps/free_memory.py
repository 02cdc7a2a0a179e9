"""Memory for the guest: caches go, what is left moves together."""

from __future__ import annotations

import contextlib
import logging

from gpuhandoff.host import Host, OverdueError
from gpuhandoff.model.plan import Json
from gpuhandoff.steps import memory

RECLAIM = "/sys/fs/cgroup/user.slice/memory.reclaim"
CHUNK = 512 << 20
"""Bytes asked for at once, so that a signal or a deadline ends it soon (kernel.md 7)."""
DEADLINE = 60.0
"""Seconds for one operation."""

log = logging.getLogger(__name__)


class FreeMemory:
    """Does its best: whether it was enough shows in the next step, which counts pages. Nothing to undo."""

    name = "free-memory"
    needs_gpu = False
    has_undo = False
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Caches are not worth keeping."""
        return {}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Write back, reclaim from the users' slice, then caches of all, then compact. What fails is only logged."""
        target = int(arguments["bytes"])
        try:
            if memory.available(host) < target:
                await host.kernel.sync(deadline=DEADLINE)
                await self._reclaim(host, target)
            if memory.available(host) < target:
                await host.kernel.write(memory.DROP_CACHES, "3", deadline=DEADLINE)
            if arguments["compact"]:
                with contextlib.suppress(FileNotFoundError):  # CONFIG_COMPACTION
                    await host.kernel.write(memory.COMPACT, "1", deadline=DEADLINE)
        except (OSError, OverdueError) as error:
            log.warning("not all memory was freed: %s", error)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Nothing to bring back."""

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Freed memory does not stay free: always."""
        return True

    async def _reclaim(self, host: Host, target: int) -> None:
        """memory.reclaim spares the system's services; it says EAGAIN when less was to be had."""
        before = memory.available(host)
        while before < target:
            try:
                await host.kernel.write(RECLAIM, str(min(CHUNK, target - before)), deadline=DEADLINE)
            except OSError as error:
                log.debug("memory.reclaim: %s", error)
                return
            now = memory.available(host)
            if now <= before:
                return
            before = now
