"""An event loop whose clock jumps over idle time, so that a deadline of a minute passes in microseconds."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, copy_context
from typing import Any, TypeVar

from gpuhandoff.simulation.lives import KilledError, Life, life_of, outside, shut_to_the_dead

Result = TypeVar("Result")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs as fast as it can. Time passes only while everybody waits, and then at once.

    Real descriptors are looked at before the clock jumps; while a thread of an executor works, real time is waited for.
    What belongs to a life that has ended is not run any more.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._threads = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._now += seconds

    @property
    def waits_for_thread(self) -> bool:
        """Whether something that takes real time is under way."""
        return self._threads > 0

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back; what the dead ask for is forgotten."""
        handle = super().call_soon(callback, *args, context=context)
        life = life_of(context)
        if life is not None and life.ended:
            handle.cancel()
        return handle

    def create_task(self, coro: Any, **named: Any) -> asyncio.Task[Any]:
        """Make a task of the life in whose context it is made; the dead would wait for theirs for ever."""
        context = named.pop("context", None)
        if context is None:
            try:
                shut_to_the_dead()
            except KilledError:
                coro.close()
                raise
            context = copy_context()
        task: asyncio.Task[Any] = super().create_task(coro, context=context, **named)
        life = life_of(context)
        if life is not None:
            life.adopt(task, context)
        return task

    def end(self, life: Life) -> None:
        """Kill a life at this very instant."""
        for handle in (*self._ready, *self._scheduled):  # type: ignore[attr-defined]
            if life_of(handle._context) is life:  # noqa: SLF001
                handle.cancel()
        life.end()

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Result], *args: Any
    ) -> asyncio.Future[Result]:
        """Run in a thread and hold the clock meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done, context=outside())
        return future

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        """Wait for the threads in real time."""
        self._threads += 1
        try:
            await super().shutdown_default_executor(*arguments)
        finally:
            self._threads -= 1

    def _thread_done(self, _future: object) -> None:
        self._threads -= 1


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if self._loop.waits_for_thread:
            return super().select(0.05 if timeout is None else min(timeout, 0.05))
        if timeout is None:
            raise RuntimeError("everybody waits for something that will never happen")
        self._loop.jump(max(timeout, 0))
        return events


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a plain test of an async one."""

    @functools.wraps(test)
    def wrapper(*arguments: Any, **named: Any) -> None:
        run(test(*arguments, **named))

    return wrapper


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
