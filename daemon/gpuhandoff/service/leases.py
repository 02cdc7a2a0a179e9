"""Leases: a GPU that was handed off for as long as its caller stays on the bus."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from gpuhandoff.host import Host
from gpuhandoff.messages import Bus, Match, RemoteError, Signal, Unsubscribe
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Why
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Jobs
from gpuhandoff.service.moves import Moves
from gpuhandoff.service.pauses import Pauses
from gpuhandoff.transaction.journal import JournalDirectory

log = logging.getLogger(__name__)


class Leases:
    """Watches callers, and takes back what they leased when they are gone."""

    def __init__(self, bus: Bus, host: Host, fleet: Fleet, jobs: Jobs, journals: JournalDirectory, moves: Moves) -> None:
        self._bus = bus
        self._host = host
        self._fleet = fleet
        self._jobs = jobs
        self._journals = journals
        self._moves = moves
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: set[tuple[str, PciAddress]] = set()

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

    async def hold(self, sender: str, gpu: PciAddress) -> None:
        """Take a GPU back when `sender` leaves, for whose stay it is lent or is just being handed off.

        However often it asks, it is watched once.
        """
        if (sender, gpu) in self._held:
            return
        self._held.add((sender, gpu))
        unsubscribe: list[Unsubscribe] = []

        def departed() -> None:
            if (sender, gpu) in self._held:
                self._held.discard((sender, gpu))
                task = asyncio.create_task(self._take_back(sender, gpu), name=f"lease of {gpu}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            while unsubscribe:
                unsubscribe.pop()()

        try:
            unsubscribe.append(await self.on_departure(sender, departed))
        except BaseException:
            self._held.discard((sender, gpu))
            raise
        if (sender, gpu) not in self._held:  # it has left meanwhile
            departed()

    async def stop(self) -> None:
        """Watch no longer; the GPUs stay where they are."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take_back(self, sender: str, gpu: PciAddress) -> None:
        """Stop the handoff, or reclaim once no VMM has the GPU open any more."""
        job = self._jobs.running(gpu)
        if job is not None:
            if job.request.sender == sender and job.cancelable:
                self._jobs.cancel(job)
            await job.finished.wait()
        if not self._is_lent_to(sender, gpu):
            return
        log.info("the lease of %s ended: its caller left the bus", gpu, extra={"GPU": str(gpu)})
        pauses = Pauses()
        while self._is_lent_to(sender, gpu):  # a look, or the Reclaim, may have met a service that did not answer
            await pauses.before(gpu, sender)
            try:
                await self._guest_ended(gpu)
                if self._is_lent_to(sender, gpu):
                    await self._moves.take_back(gpu, Why.LEASE_ENDED)
            except (OSError, RemoteError) as error:
                log.warning("%s cannot be looked at, which was leased: %s", gpu, error, extra={"GPU": str(gpu)})
            if (job := self._jobs.running(gpu)) is not None:
                await job.finished.wait()

    def _is_lent_to(self, sender: str, gpu: PciAddress) -> bool:
        record = self._journals.record(gpu)
        return record is not None and record.complete and record.lease == sender

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
