"""What the bus says of each GPU: its state, why, and what anybody may know of the card."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation
from gpuhandoff.model.verdict import Verdict
from gpuhandoff.model.world import Gpu, State, World
from gpuhandoff.names import GPU_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.plan.display import drives_display
from gpuhandoff.plan.layout import is_integrated, why_desktop_stays
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.service.paths import gpu_path
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.record import Record
from gpuhandoff.transaction.state import Standing, derive

log = logging.getLogger(__name__)

AtWork = Callable[[PciAddress], tuple[Operation | None, str] | None]
"""Tells the operation (None where nothing moves) and the object path of the job that works on a GPU."""


class Cards:
    """The objects of all GPUs, and where each was said to be."""

    def __init__(
        self,
        journals: JournalDirectory,
        tree: ObjectTree,
        at_work: AtWork,
        changed: Callable[[PciAddress, Record | None], None],
        verdict: Callable[[World, Gpu], Verdict],
    ) -> None:
        self._journals = journals
        self._tree = tree
        self.at_work = at_work
        self._changed = changed
        self.verdict = verdict
        self._standings: dict[PciAddress, Standing] = {}

    def standings(self) -> list[tuple[PciAddress, Standing]]:
        """Return where every GPU is."""
        return sorted(self._standings.items(), key=lambda one: one[0])

    def away(self) -> list[PciAddress]:
        """Return the GPUs that have an open journal."""
        return self._journals.addresses()

    def withdraw(self, address: PciAddress) -> None:
        """Forget a GPU that the machine does not have any more; what was changed for it may still be undone."""
        self._tree.withdraw(gpu_path(address))
        self._standings.pop(address, None)
        self.tell(address)

    def tell(self, address: PciAddress) -> None:
        """Have whoever waits for something look at a GPU again, also at one that is gone."""
        self._changed(address, self._journals.record(address))

    def properties(self, world: World, gpu: Gpu) -> dict[str, object]:
        """Return the properties of a GPU that has been published."""
        return self._properties(world, gpu, self._journals.record(gpu.address))

    def publish(self, world: World, gpu: Gpu) -> None:
        """Derive the state of a GPU of this machine, and say what changed."""
        running = self.at_work(gpu.address)
        record = self._journals.record(gpu.address)
        aside = record is None and self._journals.has_aside(gpu.address)
        standing = derive(gpu, record, running[0] if running else None, aside=aside)
        if aside and standing.state is State.HOST:
            self._journals.forget_aside(gpu.address)
        before = self._standings.get(gpu.address)
        self._standings[gpu.address] = standing
        path = gpu_path(gpu.address)
        self._tree.publish(path, GPU_INTERFACE, self._properties(world, gpu, record))
        if before is not None and before != standing:
            log.info("%s is now %s %s", gpu.address, standing.state, standing.reason, extra={"GPU": str(gpu.address)})
            self._tree.emit(MANAGER_PATH, MANAGER_INTERFACE, "StateChanged", path, str(standing.state), standing.reason)
        self._changed(gpu.address, record)

    def _properties(self, world: World, gpu: Gpu, record: Record | None) -> dict[str, object]:
        standing = self._standings[gpu.address]
        running = self.at_work(gpu.address)
        verdict = self.verdict(world, gpu)
        return {
            "Address": str(gpu.address),
            "Name": gpu.name,
            "Functions": [str(function.address) for function in gpu.functions],
            "IommuGroup": -1 if gpu.display.iommu_group is None else gpu.display.iommu_group,
            "State": str(standing.state),
            "Reason": standing.reason,
            "Driver": gpu.display.driver or "",
            "DrivesDisplay": drives_display(world, gpu),
            "Desktop": why_desktop_stays(world, gpu),
            "Connectors": list(gpu.connected),
            "Integrated": is_integrated(gpu),
            "Asleep": gpu.display.power.asleep,
            "Vm": record.vm if record is not None else "",
            "Owner": f"{gpu.guest.name} (pid {gpu.guest.pid})" if gpu.guest else "",
            "Job": running[1] if running else "/",
            "ResetVerdict": str(verdict.kind),
            "ResetReason": verdict.reason,
            "ResetSource": verdict.source,
            "ResetRisk": verdict.refuses,
            "Needed": verdict.needed,
            "Guests": verdict.runs,
        }
