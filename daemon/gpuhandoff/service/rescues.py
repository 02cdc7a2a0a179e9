"""Goes on with a stuck GPU as soon as what it waited for is gone."""

from __future__ import annotations

import logging

from gpuhandoff.host import Host, Purpose
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Why
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Jobs
from gpuhandoff.service.moves import Moves
from gpuhandoff.service.pauses import Pauses
from gpuhandoff.service.watches import Watches
from gpuhandoff.transaction.record import Record

FIRST_LOOK = 1.0
LONGEST_LOOK = 30.0
"""Seconds between looks at who has a card open: its closing has no event, a process's end has (pidfd)."""

log = logging.getLogger(__name__)


class Rescues:
    """A GPU is stuck because the kernel has not finished, because somebody has it open, or because the kernel refuses.

    The first two end by themselves, and then so does being stuck, also when they ended before this was looked at. The
    third is for a person, who calls Reclaim.
    """

    def __init__(self, host: Host, fleet: Fleet, jobs: Jobs, moves: Moves) -> None:
        self._host = host
        self._fleet = fleet
        self._jobs = jobs
        self._moves = moves
        self._watches = Watches("rescue")
        self._pauses = Pauses()

    def look(self, address: PciAddress, record: Record | None) -> None:
        """Watch a GPU while it is stuck; called whenever anything about it, or its journal, has changed."""
        if record is None or record.complete or self._jobs.running(address) is not None:
            self._watches.end(address)
            return
        if record.gone and self._fleet.world.gpu(address) is None:
            self._watches.end(address)  # until it is there again nothing can be done
            return
        self._watches.start(address, record.stuck, lambda: self._until_free(record))

    async def stop(self) -> None:
        """Watch no longer: the next daemon finds the journal."""
        await self._watches.stop()

    async def _until_free(self, record: Record) -> None:
        gpu = str(record.gpu)
        if self._host.kernel.pending(Purpose(gpu)):
            await self._host.kernel.settled(gpu)
            log.info("the kernel has finished with %s: going on", gpu, extra={"GPU": gpu})
        elif not (record.closing and await self._closed(record)):
            if not record.waits:
                return
            await self._pauses.before(record.gpu, record.stuck)  # the way back may fail before it says anything new
        await self._moves.take_back(record.gpu, Why.UNSTUCK)

    async def _closed(self, record: Record) -> bool:
        """Wait until nobody has the card open; False when nobody had: then that was not the cause."""
        pause = FIRST_LOOK
        holding = await self._host.processes.holding(record.nodes)
        if not holding:
            return False
        while holding:
            await self._host.processes.ended([one.process for one in holding], timeout=pause)
            pause = min(pause * 2, LONGEST_LOOK)
            holding = await self._host.processes.holding(record.nodes)
        log.info("nobody has %s open any more: going on", record.gpu, extra={"GPU": str(record.gpu)})
        return True
