"""systemd's jobs: at most one a unit, which waits or runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.simulation.faults import Operation

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine


@dataclass(frozen=True, slots=True)
class UnitJob:
    """One that waits or runs; the unit's state says nothing of it before it has begun."""

    number: int
    kind: str
    """start, stop, restart."""
    unit: str
    task: asyncio.Task[None]


class UnitJobs:
    """The jobs that there are; `began` and `ended`, with the result, are told of each."""

    def __init__(
        self, machine: SimulatedMachine, began: Callable[[UnitJob], None], ended: Callable[[UnitJob, str], None]
    ) -> None:
        self._machine = machine
        self._began = began
        self._ended = ended
        self._jobs: dict[str, UnitJob] = {}
        self._count = 0

    def of(self, unit: str) -> UnitJob | None:
        """Return a unit's job."""
        return self._jobs.get(unit)

    def numbered(self, number: str) -> UnitJob | None:
        """Return a job by its number."""
        return next((job for job in self._jobs.values() if str(job.number) == number), None)

    def enqueue(self, kind: str, unit: str, perform: Callable[[], Awaitable[str]]) -> UnitJob:
        """Enqueue a job with mode `replace`: one that waits or runs for the unit is cancelled.

        systemd itself would join one that does the same, which ends by its unit's timeout; here what hangs does so for ever.
        """
        waiting = self._jobs.get(unit)
        if waiting is not None:
            waiting.task.cancel()
            self._end(waiting, "canceled")

        async def carry_out() -> None:
            try:
                result = await self._machine.faults.guard(Operation("job", unit, kind), perform)
            except OSError:
                result = "failed"
            self._end(job, result or "done")

        self._count += 1
        job = self._jobs[unit] = UnitJob(self._count, kind, unit, self._machine.background(carry_out()))
        self._began(job)
        return job

    def _end(self, job: UnitJob, result: str) -> None:
        del self._jobs[job.unit]
        self._ended(job, result)
