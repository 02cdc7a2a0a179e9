"""The daemon put together: rooms wired in the order in which data walks through them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gpuhandoff
from gpuhandoff.authority.gate import Gate
from gpuhandoff.config import Configuration, ConfigurationError
from gpuhandoff.host import Host
from gpuhandoff.host.archive import Archive, NoArchive
from gpuhandoff.messages import Bus
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation, Options, Request, Why
from gpuhandoff.model.verdict import Verdict
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.names import API_VERSION, BUS_NAME, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.plan.display import is_needed
from gpuhandoff.service.cards import Cards
from gpuhandoff.service.chronicle import Chronicle
from gpuhandoff.service.diagnosis import Diagnosis
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.guests import Guests
from gpuhandoff.service.hook_patterns import HookPatterns
from gpuhandoff.service.hypervisor import Hypervisor
from gpuhandoff.service.inhibitors import Inhibitors
from gpuhandoff.service.jobs import Job, Jobs
from gpuhandoff.service.leases import Leases
from gpuhandoff.service.manager import Manager
from gpuhandoff.service.moves import Moves
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.service.power import Power
from gpuhandoff.service.presence import Presence
from gpuhandoff.service.previews import Previews
from gpuhandoff.service.records import Records
from gpuhandoff.service.rescues import Rescues
from gpuhandoff.service.support import Support
from gpuhandoff.steps import make_steps
from gpuhandoff.survey import read_boot_id
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.record import Record
from gpuhandoff.transaction.recovery import Recovery
from gpuhandoff.transaction.runner import Runner
from gpuhandoff.verdict import judge

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a daemon is started with."""

    bus: Bus
    host: Host
    runtime_directory: Path
    load_configuration: Callable[[], Configuration]
    state_directory: Path | None = None
    """Where history is kept; None keeps it for as long as the daemon runs."""
    archive: Archive = field(default_factory=NoArchive)
    """For support reports."""
    announce: Callable[[str], None] = lambda _: None
    """Told in one line where the GPUs are, whenever that changes."""
    hook_patterns: Path | None = None
    """The file that tells the libvirt hook which guests concern us; None writes none."""


class Daemon:
    """One gpuhandoffd."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._configuration = setting.load_configuration()
        self._rejected = ""
        """What is wrong with the configuration that was read last, when it is not in effect."""
        self._announced = ""
        self._tidy: asyncio.Task[None] | None = None
        bus, host = setting.bus, setting.host
        self._journals = JournalDirectory(setting.runtime_directory)
        self._tree = ObjectTree(bus)
        self._chronicle = Chronicle(setting.state_directory, self._gpu_at)
        self.jobs = Jobs(self._tree, self._on_job, self._chronicle.end)
        cards = Cards(self._journals, self._tree, self._at_work, self._on_gpu, self._verdict)
        hook = HookPatterns(setting.hook_patterns)
        self.fleet = Fleet(host, self._tree, self._configuration.host.gpu_services, cards, hook.look)
        self._power = Power(host, self.jobs)
        self.steps = make_steps()
        runner = Runner(host, self._journals, self.steps)
        inhibitors = Inhibitors()
        self._moves = Moves(
            host,
            self.fleet,
            self.jobs,
            self._journals,
            runner,
            inhibitors,
            self._power,
            self._tree,
            self.configuration,
            self._chronicle,
            self._verdict,
        )
        self._leases = Leases(bus, host, self.fleet, self.jobs, self._journals, self._moves)
        self._rescues = Rescues(host, self.fleet, self.jobs, self._moves)
        self._guests = Guests(
            host, self.fleet, self.jobs, self._journals, self._moves, self.configuration, self._chronicle.guest_came
        )
        self._presence = Presence(host, self.fleet, self.jobs)
        self._recovery = Recovery(host, self._journals, runner, self.steps)
        gate = Gate(bus)
        support = Support(
            host,
            self.fleet,
            self.jobs,
            self._chronicle,
            self.configuration,
            setting.runtime_directory,
            setting.archive,
        )
        self._records = Records(gate, self.fleet, self._chronicle, support, self._tree)
        self._diagnosis = Diagnosis(gate, self.fleet, host, self._tree, self.configuration, lambda: self._rejected)
        self._manager = Manager(
            gate,
            self.fleet,
            self.jobs,
            self._moves,
            inhibitors,
            self._leases,
            self._tree,
            self.configuration,
        )

        self._previews = Previews(gate, self.fleet, self._moves, self._manager, self._chronicle, self._tree)
        self._hypervisor = Hypervisor(
            gate, self.fleet, self.jobs, self._moves, self._journals, self._leases, self._tree, self.configuration
        )

    def configuration(self) -> Configuration:
        """Return the last good configuration."""
        return self._configuration

    async def start(self) -> None:
        """Survey, take over what an earlier daemon left, own the name. Raises when the API does not fit together."""
        self._manager.register()
        self._records.register()
        self._diagnosis.register()
        self._previews.register()
        self._hypervisor.register()
        self._tree.check()
        self._tree.publish(MANAGER_PATH, MANAGER_INTERFACE, self._properties())
        self._hypervisor.publish()
        boot_id = read_boot_id(self._setting.host)
        found = self._recovery.found(boot_id)  # what says nothing about this boot is gone before anything is derived from it
        await self.fleet.start()
        await self._chronicle.open(boot_id, self.fleet.world.kernel_release)
        self.fleet.refresh_all()
        await self._power.start()
        self._tree.serve()
        await self._setting.bus.request_name(BUS_NAME)
        jobs = [self._recover(gpu) for gpu in found]
        self._tidy = asyncio.create_task(self._forget_descriptors(jobs), name="what nobody has inherited")

    async def stop(self) -> None:
        """Finish or roll back what runs, and leave. GPUs that are away stay away."""
        if self._tidy is not None:
            self._tidy.cancel()
            await asyncio.gather(self._tidy, return_exceptions=True)
        await self._presence.stop()
        await self._guests.stop()
        await self._rescues.stop()
        await self.jobs.settle()
        await self._power.stop()
        await self._leases.stop()
        await self._chronicle.close()
        await self.fleet.stop()

    def reload(self) -> None:
        """Read the configuration again; keep the last good one when it is wrong."""
        try:
            self._configuration = self._setting.load_configuration()
        except ConfigurationError as error:
            log.error("keeping the last good configuration: %s", error)
            self._rejected = str(error)
            return
        self._rejected = ""
        self.fleet.use_services(self._configuration.host.gpu_services)
        log.info("configuration read again")

    def summary(self) -> str:
        """Return one line for the service manager's STATUS."""
        return ", ".join(f"{gpu} {standing.state}" for gpu, standing in self.fleet.standings()) or "no GPU found"

    async def _forget_descriptors(self, recoveries: Sequence[Job]) -> None:
        """Close what an earlier daemon had kept for a journal that is gone: an inhibitor would outlast its GPU."""
        for job in recoveries:
            await job.finished.wait()
        self._setting.host.descriptors.forget()

    def _recover(self, gpu: PciAddress) -> Job:
        """Take over or undo an earlier daemon's journal, as a job, so that nobody else works on that GPU meanwhile."""
        request = Request(Operation.RECLAIM, gpu, Options(), why=Why.RECOVERY)
        record = self._journals.record(gpu)

        async def work(job: Job) -> None:
            if record is not None and record.complete:
                await self._chronicle.taken_over(gpu)
            else:
                await self._chronicle.begin(job)
            try:
                async with self._moves.turn:
                    await self._recovery.recover(gpu, self._moves.observer(job))
                await self._renew_lease(gpu)
                self._moves.tell_recovered(gpu)
            finally:
                await self.fleet.look_again()

        return self.jobs.start(request, gpu, 0, work)

    async def _renew_lease(self, gpu: PciAddress) -> None:
        """A lease outlives the daemon: unique names are never reused, so a caller that is still there is the same."""
        record = self._journals.record(gpu)
        if record is not None and record.complete and record.lease:
            await self._leases.hold(record.lease, gpu)

    def _on_gpu(self, gpu: PciAddress, record: Record | None) -> None:
        self._presence.look(gpu, record)
        self._guests.look(gpu, record)
        self._rescues.look(gpu, record)
        summary = self.summary()
        if summary != self._announced:
            self._announced = summary
            self._setting.announce(summary)

    def _gpu_at(self, address: PciAddress) -> Gpu | None:
        return self.fleet.world.gpu(address)

    def _verdict(self, world: World, gpu: Gpu) -> Verdict:
        return judge(world, gpu, self._chronicle.experience(gpu), needed=is_needed(world, gpu))

    def _on_job(self, gpu: PciAddress) -> None:
        self._power.look()
        self.fleet.refresh(gpu)
        self._tree.update(MANAGER_PATH, MANAGER_INTERFACE, {"Busy": self.jobs.any_running})

    def _at_work(self, gpu: PciAddress) -> tuple[Operation | None, str] | None:
        job = self.jobs.running(gpu)
        if job is None:
            return None
        record = self._journals.record(gpu)
        taken_over = job.request.why is Why.RECOVERY and record is not None and record.complete
        if job.request.options.dry_run or taken_over:
            return None, job.path
        return (Operation.RECLAIM if job.undoing else job.request.operation, job.path)

    def _properties(self) -> dict[str, object]:
        return {
            "Version": gpuhandoff.__version__,
            "ApiVersion": API_VERSION,
            "Gpus": [],
            "Busy": False,
            "Inhibited": False,
            "Layout": "",
            "LayoutReason": "",
        }
