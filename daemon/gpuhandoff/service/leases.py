"""Leases: a GPU that was handed off for as long as its caller stays on the bus."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from gpuhandoff.errors import ProblemError
from gpuhandoff.host import Host
from gpuhandoff.messages import Bus, Match, Signal, Unsubscribe
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation, Options, Request, Why
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Job
from gpuhandoff.service.moves import Moves

log = logging.getLogger(__name__)


class Leases:
    """Watches callers, and takes back what they leased when they are gone."""

    def __init__(self, bus: Bus, host: Host, fleet: Fleet, moves: Moves) -> None:
        self._bus = bus
        self._host = host
        self._fleet = fleet
        self._moves = moves
        self._tasks: set[asyncio.Task[None]] = set()

    async def on_departure(self, sender: str, callback: Callable[[], None]) -> Unsubscribe:
        """Call back once when a unique name leaves the bus, also when it has left already."""
        unsubscribe = await self._bus.subscribe(
            Match(
                interface="org.freedesktop.DBus",
                member="NameOwnerChanged",
                sender="org.freedesktop.DBus",
                arg0=sender,
            ),
            lambda signal: _if_gone(signal, callback),
        )
        reply = await self._bus.call(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner", "s", (sender,)
        )
        if not reply[0]:
            callback()
        return unsubscribe

    async def hold(self, sender: str, job: Job) -> None:
        """Take the GPU of `job` back when `sender` leaves."""
        unsubscribe: list[Unsubscribe] = []

        def departed() -> None:
            task = asyncio.create_task(self._take_back(job), name=f"lease of job {job.number}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            while unsubscribe:
                unsubscribe.pop()()

        unsubscribe.append(await self.on_departure(sender, departed))

    async def stop(self) -> None:
        """Watch no longer; the GPUs stay where they are."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take_back(self, job: Job) -> None:
        """Reclaim once the handoff has ended and no VMM has the GPU open any more."""
        await job.finished.wait()
        if job.result != "done":
            return
        log.info("the lease of %s ended: its caller left the bus", job.gpu, extra={"GPU": str(job.gpu)})
        await self._guest_ended(job.gpu)
        request = Request(Operation.RECLAIM, job.gpu, Options(), why=Why.LEASE_ENDED)
        try:
            await self._moves.start(request, job.gpu, 0).finished.wait()
        except ProblemError as problem:
            log.warning("%s", problem.message, extra={"GPU": str(job.gpu)})

    async def _guest_ended(self, address: PciAddress) -> None:
        while True:
            gpu = (await self._fleet.survey()).gpu(address)
            if gpu is None or gpu.guest is None:
                return
            await self._host.processes.ended([gpu.guest], timeout=math.inf)


def _if_gone(signal: Signal, callback: Callable[[], None]) -> None:
    _, _, owner = signal.body
    if not owner:
        callback()
