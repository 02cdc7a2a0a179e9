"""Where a test makes the machine misbehave: one seam around every kernel operation and every stand-in's method."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuhandoff.simulation.waits import Waits

Perform = Callable[[], Awaitable[Any]]
Effect = Callable[[Perform], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that is asked of the machine.

    `kind` is write, read, load-module, remove-module, sync, call (a stand-in's method) or job (a unit's job);
    `target` is the path, module, member or unit, `detail` what is written or passed.
    """

    kind: str
    target: str
    detail: str = ""


@dataclass(slots=True)
class Fault:
    """One misbehaviour: the `nth` operation that fits, counted from 1; 0 means every one, and -n the nth and all later."""

    effect: Effect
    kind: str = ""
    target: str = ""
    detail: str = ""
    nth: int = 1
    when: Callable[[Operation], bool] = lambda _: True
    seen: int = 0

    def fits(self, operation: Operation) -> bool:
        """Count an operation that fits, and tell whether it is the one."""
        if (
            (self.kind and self.kind != operation.kind)
            or (self.target and not operation.target.endswith(self.target))
            or (self.detail and self.detail not in operation.detail)
            or not self.when(operation)
        ):
            return False
        self.seen += 1
        return self.nth in {0, self.seen} or 0 < -self.nth <= self.seen


@dataclass(slots=True)
class Faults:
    """The faults that are set, and every operation so far, so that a test can walk through them one by one."""

    log: list[Operation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    on_operation: Callable[[Operation], None] = lambda _: None
    """Told of every operation before anything else happens with it."""
    remembered: int = 1_000_000
    """Operations of which the latter half is kept when there are more."""

    def set(
        self,
        effect: Effect,
        *,
        kind: str = "",
        target: str = "",
        detail: str = "",
        nth: int = 1,
        when: Callable[[Operation], bool] = lambda _: True,
    ) -> Fault:
        """Let `effect` strike the nth operation whose kind is the same, target ends so, detail contains so, and `when`."""
        fault = Fault(effect, kind, target, detail, nth, when)
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Behave well again, and forget what was done."""
        self.faults.clear()
        self.log.clear()

    async def guard(self, operation: Operation, perform: Perform) -> Any:
        """Carry out an operation, or what a fault makes of it."""
        self.log.append(operation)
        if len(self.log) > self.remembered:
            del self.log[: self.remembered // 2]
        self.on_operation(operation)
        striking = [fault for fault in self.faults if fault.fits(operation)]
        return await (striking[0].effect(perform) if striking else perform())


def refuse(number: int) -> Effect:
    """Do nothing and fail with this errno."""
    return reject(OSError(number, os.strerror(number)))


def reject(error: Exception) -> Effect:
    """Do nothing and fail with this error (RemoteError or ProblemError for a stand-in's method)."""

    async def effect(_perform: Perform) -> Any:
        raise error

    return effect


def hang(until: asyncio.Event | None = None) -> Effect:
    """Do nothing until the event, then do it; without an event never."""

    async def effect(perform: Perform) -> Any:
        await (until or asyncio.Event()).wait()
        return await perform()

    return effect


class Hang:
    """An operation asleep in the kernel, in the function `function`, until somebody resolves it."""

    def __init__(self, waits: Waits, *, function: str = "wait_for_completion", afterwards: bool = False) -> None:
        self.function = function
        self.struck = False
        self._waits = waits
        self._afterwards = afterwards
        """Whether it takes effect first and only does not return."""
        self._resolved = False
        self._error = 0

    async def effect(self, perform: Perform) -> Any:
        """Be the effect of a fault."""
        self.struck = True
        result = await perform() if self._afterwards else None
        await self._waits.until(lambda: self._resolved, self.function)
        if self._error:
            raise OSError(self._error, os.strerror(self._error))
        return result if self._afterwards else await perform()

    def resolve(self, error: int = 0) -> None:
        """Let it take effect and return, or fail with an errno without effect."""
        self._error = error
        self._resolved = True
        self._waits.wake()


def partly(part: Perform, otherwise: Effect) -> Effect:
    """Do only a part of it, and then report what `otherwise`, an effect of its own that does nothing, reports."""

    async def effect(perform: Perform) -> Any:
        await part()
        return await otherwise(perform)

    return effect


def lie(result: Any = None) -> Effect:
    """Do nothing and report success; a stand-in's method needs the Reply that it would have given."""

    async def effect(_perform: Perform) -> Any:
        return result

    return effect


def fail_afterwards(number: int = errno.EIO) -> Effect:
    """Do it and report a failure."""

    async def effect(perform: Perform) -> Any:
        await perform()
        raise OSError(number, os.strerror(number))

    return effect


def late(seconds: float) -> Effect:
    """Do it, but not before so much time has passed."""

    async def effect(perform: Perform) -> Any:
        await asyncio.sleep(seconds)
        return await perform()

    return effect


def before(callback: Callable[[], None]) -> Effect:
    """Call something just before it is done: end the daemon, cancel the job, start a process."""

    async def effect(perform: Perform) -> Any:
        callback()
        return await perform()

    return effect


def after(callback: Callable[[], None]) -> Effect:
    """Call something just after it was done, before anybody learns of it."""

    async def effect(perform: Perform) -> Any:
        result = await perform()
        callback()
        return result

    return effect
