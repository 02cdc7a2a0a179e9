"""org.gpuhandoff.Hypervisor: a GPU is where a virtual machine needs it, at the moments that its hypervisor tells of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from gpuhandoff.authority.gate import Gate
from gpuhandoff.config import Configuration
from gpuhandoff.config.options import quote
from gpuhandoff.errors import BusyError, InvalidArgsError, ProblemError, UnsupportedError, WrongStateError
from gpuhandoff.host.roms import is_hidden, read_file
from gpuhandoff.hypervisor.consent import in_configuration
from gpuhandoff.hypervisor.domain import Domain
from gpuhandoff.hypervisor.meaning import gpus_of, needs, refuse_domain
from gpuhandoff.hypervisor.parse import parse_domain
from gpuhandoff.hypervisor.rom import LARGEST as LARGEST_ROM
from gpuhandoff.hypervisor.rom import problem_of
from gpuhandoff.messages import Body, Call, RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation, Options, Request, Why
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.names import HYPERVISOR_INTERFACE, MANAGER_PATH
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Jobs
from gpuhandoff.service.leases import Leases
from gpuhandoff.service.moves import Moves
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.transaction.journal import JournalDirectory

LONGEST_NAME = 255
"""Characters of a guest's name; libvirt makes files with it."""
GUEST_TIMEOUT = 300
"""Seconds from prepare until QEMU has the GPU, unless the configuration says otherwise: who died tells of no end."""

LOOK = frozenset({"started", "stopped", "reconnect", "attach"})
MOVED = frozenset({"migrate", "restore"})
OPERATIONS = frozenset({"prepare", "start", "release"}) | LOOK | MOVED

log = logging.getLogger(__name__)


class Hypervisor:
    """Answers the hooks. What is lent to whom is read from the open journals, never remembered here."""

    def __init__(
        self,
        gate: Gate,
        fleet: Fleet,
        jobs: Jobs,
        moves: Moves,
        journals: JournalDirectory,
        leases: Leases,
        tree: ObjectTree,
        configuration: Callable[[], Configuration],
    ) -> None:
        self._gate = gate
        self._fleet = fleet
        self._jobs = jobs
        self._moves = moves
        self._journals = journals
        self._leases = leases
        self._tree = tree
        self._configuration = configuration

    def register(self) -> None:
        """Offer the methods."""
        self._tree.register(HYPERVISOR_INTERFACE, "Event", self.event)
        self._tree.register(HYPERVISOR_INTERFACE, "EventInParts", self.event_in_parts)

    def publish(self) -> None:
        """Show the interface."""
        self._tree.publish(MANAGER_PATH, HYPERVISOR_INTERFACE, {})

    async def event(self, call: Call) -> Body:
        """Do what an event needs."""
        guest, operation, _, _, xml = call.body
        return await self._event(call.sender, guest, operation, xml)

    async def event_in_parts(self, call: Call) -> Body:
        """Do the same; the XML comes in parts."""
        guest, operation, _, _, parts = call.body
        return await self._event(call.sender, guest, operation, "".join(parts))

    async def _event(self, sender: str, guest: str, operation: str, xml: str) -> Body:
        await self._gate.allow_root(sender)
        if not guest or len(guest) > LONGEST_NAME or not guest.isprintable():
            raise InvalidArgsError(f"guest: a name of 1 to {LONGEST_NAME} printable characters is expected.")
        if operation not in OPERATIONS:
            raise InvalidArgsError(f"operation: {quote(operation)} is none of {', '.join(sorted(OPERATIONS))}.")
        if operation == "release":  # whatever the XML says by now: the journals know what is lent to it
            await self._release(sender, guest)
            return ()
        gpus = gpus_of(domain := parse_domain(xml), self._fleet.world)
        log.debug("%s of %s, which has %d GPUs", operation, guest, len(gpus))
        if gpus and operation == "prepare":
            await self._prepare(sender, guest, domain, gpus[0].address)
        elif gpus and operation in LOOK:
            await self._fleet.look_again()
        elif gpus and operation in MOVED:
            raise UnsupportedError(
                f"{guest} has {gpus[0].address} ({gpus[0].name}): the state of a GPU can be neither saved nor moved to "
                "another host. Shut the guest down and start it anew."
            )
        return ()

    async def _prepare(self, sender: str, guest: str, domain: Domain, address: PciAddress) -> None:
        """Return when the GPU is lent to the guest. Its caller's leaving cancels, or takes back what has come too far."""
        departed = asyncio.Event()
        unwatch = await self._leases.on_departure(sender, departed.set)
        try:
            world, gpus = await self._allowed(sender, guest, domain, address)
            for gpu in gpus:
                if not await self._is_lent(sender, guest, gpu):
                    await self._lend(self._request(sender, guest, domain, gpu, world), gpu, departed)
                if departed.is_set():
                    log.warning("who asked for %s for %s has left before it was there", gpu.address, guest)
                    await self._moves.take_back(gpu.address, Why.GUEST_MISSING)
        finally:
            unwatch()

    async def _refuse_rom(self, domain: Domain, gpus: Iterable[Gpu]) -> None:
        """Refuse a ROM file that is none, or another card's: the guest would start to a black screen, and nobody say why."""
        displays = {gpu.address: gpu.display for gpu in gpus}
        for one in domain.hostdevs:
            display = displays.get(one.address)
            if display is None or not one.rom_file or one.rom_bar is False:
                continue
            try:  # in a thread: it may lie on a server that is gone
                if await asyncio.to_thread(is_hidden, one.rom_file):
                    continue
                data = await asyncio.to_thread(read_file, one.rom_file, LARGEST_ROM)
            except FileNotFoundError as error:
                raise InvalidArgsError(f"The ROM file {one.rom_file} of {one.address} is not there.") from error
            except OSError as error:  # Libvirt, which may see it, will say.
                log.warning("the ROM file %s cannot be looked at: %s", one.rom_file, error)
                continue
            problem = problem_of(data, display.vendor, display.device)
            if problem:
                raise InvalidArgsError(f"{one.rom_file} is no ROM for {one.address}: {problem}.")

    async def _allowed(self, sender: str, guest: str, domain: Domain, address: PciAddress) -> tuple[World, tuple[Gpu, ...]]:
        """Return the machine and the domain's GPUs when nothing about them speaks against it; a refusal is in history."""
        try:
            await self._quiet(address, guest)
            world = await self._look()
            gpus = gpus_of(domain, world)
            refuse_domain(domain, gpus, world)
            await self._refuse_rom(domain, gpus)
            for gpu in gpus:
                self._refuse_lent(guest, gpu)
        except ProblemError as problem:
            request = Request(Operation.HANDOFF, address, Options(vm=guest), sender)
            self._jobs.refuse(request, address, 0, problem)
            raise
        return world, gpus

    async def _look(self) -> World:
        try:
            return await self._fleet.survey()
        except (OSError, RemoteError) as error:
            raise UnsupportedError(f"The machine cannot be looked at: {getattr(error, 'message', error)}.") from error

    async def _quiet(self, address: PciAddress, guest: str) -> None:
        """Wait for what works on the GPU: its way back, or the way to this very guest. Another guest's is refused."""
        while (job := self._jobs.running(address)) is not None:
            vm = job.request.options.vm
            if job.request.operation is Operation.HANDOFF and vm != guest:
                whom = f"to {vm}" if vm else "already"
                raise BusyError(f"{address} is being lent {whom}. Shut that guest down first.")
            await job.finished.wait()

    def _refuse_lent(self, guest: str, gpu: Gpu) -> None:
        """Refuse a GPU that is lent to another guest, or that a VMM has."""
        record = self._journals.record(gpu.address)
        if record is None or not record.complete:
            return
        if record.vm not in {"", guest}:
            raise WrongStateError(f"{gpu.address} ({gpu.name}) is lent to {record.vm}. Shut that guest down first.")
        if gpu.guest is not None:
            raise WrongStateError(
                f"{gpu.address} ({gpu.name}) is with a virtual machine: {gpu.guest.name} (pid {gpu.guest.pid}) has it open. "
                "Shut that machine down first."
            )

    async def _is_lent(self, sender: str, guest: str, gpu: Gpu) -> bool:
        """Tell whether the GPU is lent to the guest and waits for it; one that somebody has moved since is taken back."""
        await self._quiet(gpu.address, guest)  # its way back may have begun since it was looked at
        record, now = self._journals.record(gpu.address), self._fleet.world.gpu(gpu.address)
        if now is not None:
            self._refuse_lent(guest, now)
        if record is None or not record.complete:
            return False
        if now is None or not now.on_vfio:
            await self._take_back(sender, gpu.address)
            return False
        self._journals.note(gpu.address, expected=True, at=asyncio.get_running_loop().time())
        self._fleet.refresh(gpu.address)
        return True

    def _request(self, sender: str, guest: str, domain: Domain, gpu: Gpu, world: World) -> Request:
        options = self._configuration().options_for(gpu.address, guest, needs(domain, world))
        options = replace(options, vm=guest, guest_timeout=options.guest_timeout or GUEST_TIMEOUT)
        return Request(Operation.HANDOFF, gpu.address, options, sender)

    async def _lend(self, request: Request, gpu: Gpu, departed: asyncio.Event) -> None:
        job = self._moves.start(request, gpu.address, 0)
        leaving = asyncio.ensure_future(departed.wait())
        finished = asyncio.ensure_future(job.finished.wait())
        try:
            await asyncio.wait({leaving, finished}, return_when=asyncio.FIRST_COMPLETED)
            if job.cancelable:
                self._jobs.cancel(job)
            await finished
        finally:
            leaving.cancel()
            finished.cancel()
        if job.problem is not None:
            raise type(job.problem)(in_configuration(job.problem.message, request.options.vm))

    async def _release(self, sender: str, guest: str) -> None:
        """Take back what is lent to the guest, once: whoever does so already is waited for."""
        for address in self._fleet.away():
            if not self._has(guest, address):
                continue
            job = self._jobs.running(address)
            if job is not None and job.cancelable:
                self._jobs.cancel(job)
            if job is not None:
                await job.finished.wait()
            if self._has(guest, address):
                await self._take_back(sender, address)

    def _has(self, guest: str, address: PciAddress) -> bool:
        record = self._journals.record(address)
        return record is not None and record.vm == guest

    async def _take_back(self, sender: str, address: PciAddress) -> None:
        request = Request(Operation.RECLAIM, address, Options(), sender, why=Why.GUEST_ENDED)
        job = self._moves.start(request, address, 0)
        await job.finished.wait()
        if job.problem is not None:
            raise type(job.problem)(job.problem.message)
