"""Background waits, at most one a GPU, each for one thing that has a name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from gpuhandoff.model.address import PciAddress

log = logging.getLogger(__name__)


class Watches:
    """What is waited for, by GPU."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._tasks: dict[PciAddress, tuple[str, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._over = False

    def start(self, gpu: PciAddress, key: str, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the thing named `key` and for no other; the same is not waited for again when it is over."""
        known = self._tasks.get(gpu)
        if self._over or (known is not None and known[0] == key):
            return
        self.end(gpu)
        self._tasks[gpu] = (key, asyncio.create_task(self._guarded(gpu, wait), name=f"{self._kind} of {gpu}: {key}"))

    def end(self, gpu: PciAddress) -> None:
        """Wait for nothing any more."""
        known = self._tasks.pop(gpu, None)
        if known is not None and known[1] is not asyncio.current_task():
            known[1].cancel()
            self._ending.add(known[1])
            known[1].add_done_callback(self._ending.discard)

    async def stop(self) -> None:
        """End all, see them end, and begin none any more."""
        self._over = True
        for gpu in tuple(self._tasks):
            self.end(gpu)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _guarded(self, gpu: PciAddress, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have one that failed begun anew by whoever looks next."""
        try:
            await wait()
        except Exception:
            log.exception("watching failed")
            self.end(gpu)
