"""Takes a GPU back whose virtual machine has ended, or never came, when nobody else does."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from gpuhandoff.config import Configuration
from gpuhandoff.host import Host
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Why
from gpuhandoff.model.world import Process
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Jobs
from gpuhandoff.service.moves import Moves
from gpuhandoff.service.pauses import Pauses
from gpuhandoff.service.watches import Watches
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.record import Record

log = logging.getLogger(__name__)


class Guests:
    """Watches, for every GPU that is away, the process that has it or the time in which one has to come."""

    def __init__(
        self,
        host: Host,
        fleet: Fleet,
        jobs: Jobs,
        journals: JournalDirectory,
        moves: Moves,
        configuration: Callable[[], Configuration],
        came: Callable[[PciAddress], None],
    ) -> None:
        self._host = host
        self._fleet = fleet
        self._jobs = jobs
        self._journals = journals
        self._moves = moves
        self._configuration = configuration
        self._came = came
        self._watches = Watches("guest")
        self._pauses = Pauses()

    def look(self, address: PciAddress, record: Record | None) -> None:
        """Watch what there is to be watched now; called whenever anything about a GPU, or its journal, has changed."""
        if record is None or not record.complete or self._jobs.running(address) is not None:
            self._watches.end(address)
            return
        gpu = self._fleet.world.gpu(address)
        guest = gpu.guest if gpu is not None else None
        if guest is not None and not _same(guest, record.guest):
            identity = {"pid": guest.pid, "start_time": guest.start_time, "name": guest.name, "uid": guest.uid}
            self._journals.note(address, guest=identity)
            self._came(address)
        process = guest or record.guest
        if process is not None:
            key = f"{process.pid} {process.start_time}"
            self._watches.start(address, key, lambda: self._until_ended(address, process))
        elif gpu is None:
            self._watches.start(address, "gone", lambda: self._take_back(address, Why.GPU_GONE))
        elif record.guest_timeout:
            self._watches.start(address, f"job {record.job} {record.held_at}", lambda: self._until_missing(address, record))
        else:
            self._watches.end(address)

    async def stop(self) -> None:
        """Watch no longer; the GPUs stay where they are."""
        await self._watches.stop()

    async def _until_ended(self, address: PciAddress, process: Process) -> None:
        """Wait for the end of a VMM, and then for whoever wants to reclaim the GPU or start the next one."""
        await self._host.processes.ended([process], timeout=math.inf)
        grace = self._configuration().host.reclaim_grace
        log.info("%s (pid %d), which had %s, has ended", process.name, process.pid, address, extra={"GPU": str(address)})
        await asyncio.sleep(grace)
        await self._take_back(address, Why.GUEST_ENDED)

    async def _until_missing(self, address: PciAddress, record: Record) -> None:
        """Wait as long as the handoff's caller said."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, record.held_at + record.guest_timeout - now))
        await self._take_back(address, Why.GUEST_MISSING)

    async def _take_back(self, address: PciAddress, why: Why) -> None:
        record = self._journals.record(address)
        await self._pauses.before(address, f"{why} {record.job if record is not None else ''}")
        await self._fleet.look_again()
        gpu = self._fleet.world.gpu(address)
        # A look that failed shows who had it before; the job looks again, and refuses where a guest really has it.
        if gpu is None or gpu.guest is None or self._host.processes.state(gpu.guest) is None:
            await self._moves.take_back(address, why)


def _same(one: Process, other: Process | None) -> bool:
    return other is not None and (one.pid, one.start_time) == (other.pid, other.start_time)
