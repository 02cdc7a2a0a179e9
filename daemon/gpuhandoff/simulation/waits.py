"""Operations asleep inside the simulated kernel, and what wakes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sleep:
    """How a sleeping operation looks in /proc: its state letter and the kernel function it sleeps in."""

    state: str
    function: str


class Waits:
    """Lets an operation sleep until a fact about the machine holds; whoever changes the machine calls `wake`."""

    def __init__(self) -> None:
        self.pace = 0.0
        """Multiplies every duration of the machine; 0 while it boots."""
        self._sleepers: set[asyncio.Future[None]] = set()
        self._sleeps: dict[asyncio.Task[object], Sleep] = {}

    async def takes(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds * self.pace)

    async def until(self, fulfilled: Callable[[], bool], function: str, *, state: str = "D") -> None:
        """Sleep in the kernel function `function` until `fulfilled()`, perhaps for ever."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can sleep")
        self._sleeps[task] = Sleep(state, function)
        try:
            while not fulfilled():
                sleeper = asyncio.get_running_loop().create_future()
                self._sleepers.add(sleeper)
                try:
                    await sleeper
                finally:
                    self._sleepers.discard(sleeper)
        finally:
            del self._sleeps[task]

    def wake(self) -> None:
        """Have every sleeper look again."""
        for sleeper in tuple(self._sleepers):
            if not sleeper.done():
                sleeper.set_result(None)

    def where(self, task: asyncio.Task[object]) -> Sleep:
        """Tell where a task sleeps."""
        return self._sleeps.get(task, Sleep("R", ""))
