"""What other GPUs that are away have in common with one that moves, as their journals say it."""

from __future__ import annotations

from gpuhandoff.host import Host
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.plan import Json
from gpuhandoff.steps.baseline import EXCLUSIVE, upon, without
from gpuhandoff.steps.step import Step
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.record import Entry


class Shares:
    """Keeps what is journaled for one GPU apart from what was done for others."""

    def __init__(self, journals: JournalDirectory) -> None:
        self._journals = journals

    def own(self, gpu: PciAddress, step: str, captured: Json) -> Json:
        """Return what is to be journaled of what a step has captured."""
        return without(step, captured, self._saved(gpu, step))

    async def undo(self, host: Host, gpu: PciAddress, step: Step, entry: Entry) -> None:
        """Undo a step, or have another GPU's setting hold where there can only be one."""
        others = self._others(gpu, entry.name)
        if others and entry.name in EXCLUSIVE:
            await step.apply(host, others[-1].arguments, others[-1].saved)
        else:
            await step.undo(host, entry.arguments, upon(entry.name, entry.saved, [one.saved for one in others]))

    def stopped_services(self, gpu: PciAddress) -> frozenset[str]:
        """Return the GPU services that other GPUs, which are away, will start again."""
        return frozenset(name for saved in self._saved(gpu, "stop-gpu-services") for name in saved.get("running", ()))

    def _saved(self, gpu: PciAddress, step: str) -> list[Json]:
        return [one.saved for one in self._others(gpu, step)]

    def _others(self, gpu: PciAddress, step: str) -> list[Entry]:
        """Return where the same step is in effect for other GPUs, the one that was lent first in front."""
        records = [self._journals.record(other) for other in self._journals.addresses() if other != gpu]
        away = sorted((record for record in records if record is not None), key=lambda record: record.held_at)
        return [entry for record in away for entry in record.to_undo() if entry.name == step]
