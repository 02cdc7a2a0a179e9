"""The two moves as jobs: Handoff and Reclaim, from an authorised request to the machine's new state."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import Callable

from gpuhandoff.config import Configuration
from gpuhandoff.errors import BusyError, InUseError, ProblemError, TimedOutError, WrongStateError
from gpuhandoff.host import Host
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.plan import Json, Plan
from gpuhandoff.model.request import Operation, Options, Request, Why
from gpuhandoff.model.verdict import Verdict
from gpuhandoff.model.world import Gpu, Process, World
from gpuhandoff.names import MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.plan.display import people_shown
from gpuhandoff.plan.handoff import plan_handoff
from gpuhandoff.plan.reclaim import plan_release, refuse_reclaim
from gpuhandoff.plan.refusal import refuse_others
from gpuhandoff.service.chronicle import Chronicle
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.inhibitors import Inhibitors, Waits
from gpuhandoff.service.jobs import Job, Jobs
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.service.paths import gpu_path
from gpuhandoff.service.power import Power
from gpuhandoff.steps.bind_vfio import refuse_guest
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.runner import Observer, Runner, Terms
from gpuhandoff.transaction.shares import Shares

log = logging.getLogger(__name__)

TOUCHES_PEOPLE = frozenset({"stop-display", "stop-gpu-services"})
"""Steps that end or start sessions and units."""
EVICTION_GRACE = 30.0
"""Seconds a VMM has to end after SIGTERM before it is killed: QEMU asks nobody and ends at once."""


class Moves:
    """Carries out requests on the fleet."""

    def __init__(
        self,
        host: Host,
        fleet: Fleet,
        jobs: Jobs,
        journals: JournalDirectory,
        runner: Runner,
        inhibitors: Inhibitors,
        power: Power,
        tree: ObjectTree,
        configuration: Callable[[], Configuration],
        chronicle: Chronicle,
        verdict: Callable[[World, Gpu], Verdict],
    ) -> None:
        self._host = host
        self._fleet = fleet
        self._jobs = jobs
        self._journals = journals
        self._runner = runner
        self._inhibitors = inhibitors
        self._power = power
        self._tree = tree
        self._configuration = configuration
        self._chronicle = chronicle
        self._verdict = verdict
        self.turn = asyncio.Lock()
        """One move at a time: GPUs share drivers, modules, CPUs, pages, and a plan has to hold while it is carried out."""

    def start(self, request: Request, gpu: PciAddress, uid: int) -> Job:
        """Start the job that carries out `request`, or join the one that does so already. Raises ProblemError."""
        self._power.refuse()
        work = self._handoff if request.operation is Operation.HANDOFF else self._reclaim
        return self._jobs.start(request, gpu, uid, work)

    async def take_back(self, gpu: PciAddress, why: Why) -> None:
        """Begin a Reclaim without being asked, unless there is nothing to be taken back any more."""
        await self._power.stays()
        if self._journals.record(gpu) is None:
            return
        log.info("taking %s back: %s", gpu, why, extra={"GPU": str(gpu)})
        try:
            self.start(Request(Operation.RECLAIM, gpu, Options(), why=why), gpu, 0)
        except ProblemError as problem:
            log.warning("%s", problem.message, extra={"GPU": str(gpu)})

    def plan(self, world: World, gpu: Gpu, operation: Operation, options: Options) -> Plan | None:
        """Return what would be done, None for the undo of an open journal; or raise why not. Touches nothing."""
        if operation is Operation.HANDOFF:
            return self._plan_handoff(world, gpu, options)
        refuse_reclaim(gpu, options)
        return plan_release(gpu) if self._journals.record(gpu.address) is None else None

    def undo_steps(self, gpu: PciAddress) -> list[tuple[str, str, str, Json]]:
        """Return what Reclaim would undo, in that order, as plan_report takes steps: name, does, costs, arguments."""
        record = self._journals.record(gpu)
        return [(entry.name, "undo it", "", entry.arguments) for entry in record.to_undo()] if record is not None else []

    def tell_recovered(self, gpu: PciAddress) -> None:
        """Tell whoever has heard the beginning of a handoff from an earlier daemon that the GPU is back."""
        if self._journals.record(gpu) is None:
            self._prepare(gpu, start=False)

    def observer(self, job: Job) -> Observer:
        """Return what the transaction room reports a job's steps to."""
        return lambda step, phase, index, count: self._jobs.observe(job, step, phase, index, count)

    def _plan_handoff(self, world: World, gpu: Gpu, options: Options) -> Plan:
        record = self._journals.record(gpu.address)
        if record is not None:
            if not record.complete:
                why = record.stuck or "a move was interrupted and has not been undone; reclaim it first."
                raise WrongStateError(f"{gpu.address} ({gpu.name}) takes no further work: {why}")
            whom = f"to {record.vm}" if record.vm else "already"
            raise WrongStateError(f"{gpu.address} ({gpu.name}) is handed off {whom}.")
        self._inhibitors.refuse()
        stopped = Shares(self._journals).stopped_services(gpu.address)
        return plan_handoff(world, gpu, options, self._configuration().host, self._verdict(world, gpu), stopped)

    async def _handoff(self, job: Job) -> None:
        """Check, say that it begins, wait for who has asked for that, check again, and run; others may move meanwhile."""
        announced = same_people = False
        try:
            async with self.turn:
                found = await self._survey_for(job)
                same_people = TOUCHES_PEOPLE.isdisjoint(step.name for step in found[1].steps)
                if job.request.options.dry_run:
                    return
                job.desktops = people_shown(found[0], self._known(found[0], job.gpu))
                await self._chronicle.begin(job)
                announced = True
                waits = self._announce(job)
                if not waits:
                    await self._run(job, *found, waited=0)
                    return
            began = asyncio.get_running_loop().time()
            same_people = False
            await self._wait(job, waits)
            async with self.turn:
                found = await self._survey_for(job)
                same_people = TOUCHES_PEOPLE.isdisjoint(step.name for step in found[1].steps)
                await self._run(job, *found, waited=asyncio.get_running_loop().time() - began)
        except BaseException:
            if announced and self._journals.record(job.gpu) is None:
                self._prepare(job.gpu, start=False)
            raise
        finally:
            if announced:
                await self._fleet.look_again(same_people=same_people)

    async def _reclaim(self, job: Job) -> None:
        async with self.turn:
            await self._take(job)

    async def _survey_for(self, job: Job) -> tuple[World, Plan]:
        """Return the machine as it is and what the handoff does on it; raises ProblemError where it does not want it."""
        options = job.request.options
        world = await self._fleet.survey(with_processes=options.quiet)
        gpu = self._known(world, job.gpu)
        plan = self._plan_handoff(world, gpu, options)
        if not options.dry_run:
            refuse_others(world, gpu, job.request.only_user)
        return world, plan

    def _announce(self, job: Job) -> Waits:
        """Say that a handoff begins, and return for whom it waits: each kind has a limit of its own.

        In the time of the desktops a person is asked, and programs end that want to know what to save.
        """
        host = self._configuration().host
        programs, desktops = self._inhibitors.delaying(job.desktops if host.session_delay else ())
        most = job.request.options.timeout or math.inf
        waits = Waits(programs, min(host.inhibit_delay, most), desktops, min(host.session_delay, most))
        self._jobs.waits(job, waits.longest, waits.longest_for_desktops, {one.sender for one in desktops})
        self._prepare(job.gpu, start=True)
        return waits

    async def _wait(self, job: Job, waits: Waits) -> None:
        try:
            await waits.over()
        finally:
            self._jobs.waits(job, 0)

    async def _run(self, job: Job, world: World, plan: Plan, *, waited: float) -> None:
        options = job.request.options
        if options.timeout and waited >= options.timeout:
            raise TimedOutError(
                f"Programs had asked for a delay, and the {options.timeout} s are over. Nothing was changed."
            )
        terms = Terms(
            boot_id=world.boot_id,
            job=job.number,
            vm=options.vm,
            lease=job.request.sender if options.lease else "",
            guest_timeout=options.guest_timeout,
            timeout=options.timeout and options.timeout - waited,
        )
        await self._runner.run(plan, terms, self.observer(job))
        job.complete = True

    async def _take(self, job: Job) -> None:
        options = job.request.options
        world = await self._fleet.survey()
        record = self._journals.record(job.gpu)
        gpu = world.gpu(job.gpu)
        if gpu is None and record is None:
            raise BusyError(f"{job.gpu} is no longer there.")
        plan = self.plan(world, gpu, Operation.RECLAIM, options) if gpu is not None else None
        if options.dry_run:
            return
        if gpu is not None and gpu.guest is not None:
            await self._evict(gpu, gpu.guest)
        await self._chronicle.begin(job)
        if gpu is not None:  # one may have come since, and steps that it relies on are undone before its driver is
            await refuse_guest(self._host, [str(function.address) for function in gpu.functions])
        try:
            if plan is None:
                await self._runner.undo(job.gpu, str(job.request.why), self.observer(job))
            else:
                terms = Terms(boot_id=world.boot_id, job=job.number)
                await self._runner.run(plan, terms, self.observer(job))
        finally:
            touched = {entry.name for entry in record.entries} if record is not None else set()
            await self._fleet.look_again(same_people=TOUCHES_PEOPLE.isdisjoint(touched))
        self._prepare(job.gpu, start=False)

    async def _evict(self, gpu: Gpu, guest: Process) -> None:
        """End the virtual machine that still runs on the GPU."""
        log.warning("ending %s (pid %d), which has %s", guest.name, guest.pid, gpu.address, extra={"GPU": str(gpu.address)})
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._host.processes.signal(guest, number)
            if await self._host.processes.ended([guest], timeout=EVICTION_GRACE):
                return
        raise InUseError(f"{guest.name} (pid {guest.pid}) does not end, not even when killed; {gpu.address} stays with it.")

    def _known(self, world: World, address: PciAddress) -> Gpu:
        gpu = world.gpu(address)
        if gpu is None:
            raise BusyError(f"{address} is no longer there.")
        return gpu

    def _prepare(self, gpu: PciAddress, *, start: bool) -> None:
        self._tree.emit(MANAGER_PATH, MANAGER_INTERFACE, "PrepareForHandoff", gpu_path(gpu), start)
