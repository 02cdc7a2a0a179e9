"""Work that is done for all who wait for it, one piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Shared(Generic[Result]):
    """Pieces of work in the order in which they were first asked for.

    What has not begun is done once for everybody who asks for it until then. What has begun may have overlooked what
    happened since: who asks now gets the next one.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._coming: dict[Hashable, asyncio.Task[Result]] = {}
        self._tasks: set[asyncio.Task[Result]] = set()

    async def share(self, what: Hashable, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `work` returns, or raise what it raises. Who is cancelled takes it from nobody else."""
        task = self._coming.get(what)
        if task is None:
            task = self._coming[what] = asyncio.create_task(self._do(what, work))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Give up what nobody waits for any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _do(self, what: Hashable, work: Callable[[], Awaitable[Result]]) -> Result:
        async with self._turn:
            del self._coming[what]
            return await work()

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone
