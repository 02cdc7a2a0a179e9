"""Pauses before what has failed is tried again by itself."""

from __future__ import annotations

import asyncio

from gpuhandoff.model.address import PciAddress

FIRST = 5.0
LONGEST = 1800.0
"""Seconds; each pause is twice the one before: what lasts a day fills no history, which keeps 200 moves."""


class Pauses:
    """How often each GPU was tried for the same reason: a failure that lasts must not become a loop."""

    def __init__(self) -> None:
        self._next: dict[PciAddress, tuple[str, float]] = {}

    async def before(self, gpu: PciAddress, reason: str) -> None:
        """Wait before a try: the first for a reason is made at once."""
        known, pause = self._next.get(gpu, ("", 0.0))
        if known != reason:
            pause = 0.0
        self._next[gpu] = (reason, min(max(2 * pause, FIRST), LONGEST))
        await asyncio.sleep(pause)
