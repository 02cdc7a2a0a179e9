"""Processes that live inside this one, and can be killed: what such a life runs stops at once, none of its clean-up runs.

Every task, callback and timer belongs to the life in whose context it was made. Whoever carries something out for
somebody else (the kernel, a service, the bus) does so `outside`, so that it goes on when the one who asked has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
import weakref
from collections.abc import Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any

CLOSINGS = 100
"""How often a coroutine may wait for something while it is closed."""


class KilledError(BaseException):
    """Ends the stretch of code in which a life was killed, and whatever it still wants of the machine."""


class Life:
    """One such process."""

    def __init__(self) -> None:
        self.ended = False
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], Context] = weakref.WeakKeyDictionary()
        self._dead: list[tuple[asyncio.Task[Any], Context]] = []

    @contextlib.contextmanager
    def lived(self) -> Iterator[None]:
        """Let what is begun in here belong to this life."""
        token = _LIFE.set(self)
        try:
            yield
        finally:
            _LIFE.reset(token)

    def adopt(self, task: asyncio.Task[Any], context: Context) -> None:
        """Remember a task, to be stopped at the end; what comes after the end is never begun."""
        if self.ended:
            self._lay_out(task, context)
        else:
            self._tasks[task] = context

    def end(self) -> None:
        """Stop every task where it is; it never ends, so nobody may wait for it."""
        self.ended = True
        current = asyncio.current_task()
        if current is not None:  # what kills it is no failure that anybody has to hear of, at some later time and place
            current.add_done_callback(lambda task: task.cancelled() or task.exception(), context=outside())
        for task, context in list(self._tasks.items()):
            if not task.done() and task is not current:
                self._lay_out(task, context)

    def bury(self) -> None:
        """Close the coroutines of the dead, once nothing matters any more: their `finally` meets doors that are shut."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a `finally` has begun and nobody will ever wait for
            while self._dead:
                _close(*self._dead.pop())

    def _lay_out(self, task: asyncio.Task[Any], context: Context) -> None:
        asyncio.tasks._unregister_task(task)  # noqa: SLF001
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
        self._dead.append((task, context))


def _close(task: asyncio.Task[Any], context: Context) -> None:
    coroutine = task.get_coro()
    for _ in range(CLOSINGS):
        try:
            context.run(coroutine.close)
        except RuntimeError:  # it waits for something in a `finally`: once more
            continue
        except (Exception, KilledError):  # noqa: BLE001  (nobody listens to the dead)
            return
        return


_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


def life_of(context: Context | None = None) -> Life | None:
    """Return the life that a context, or what runs now, belongs to; None for the machine and the test."""
    return _LIFE.get() if context is None else context.get(_LIFE)


def shut_to_the_dead() -> None:
    """Raise KilledError for whoever has been killed and comes with a request all the same, out of a `finally`."""
    life = _LIFE.get()
    if life is not None and life.ended:
        raise KilledError


def outside() -> Context:
    """Return a context that belongs to no life."""
    context = copy_context()
    context.run(_LIFE.set, None)
    return context
