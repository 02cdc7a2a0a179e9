"""What a daemon that has just started does with the journals it finds."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from gpuhandoff.errors import ProblemError
from gpuhandoff.host import Host
from gpuhandoff.model.address import PciAddress
from gpuhandoff.steps.step import Step
from gpuhandoff.transaction.journal import JournalDirectory, Record
from gpuhandoff.transaction.runner import Observer, Runner

log = logging.getLogger(__name__)


class Recovery:
    """Brings every journal to a known end: kept (the GPU is away, all steps hold) or undone."""

    def __init__(self, host: Host, journals: JournalDirectory, runner: Runner, steps: Mapping[str, Step]) -> None:
        self._host = host
        self._journals = journals
        self._runner = runner
        self._steps = steps

    def pending(self, boot_id: str) -> list[PciAddress]:
        """Return the GPUs whose journal has to be looked at; forget those of another boot, which the reboot undid."""
        found = []
        for gpu in self._journals.addresses():
            record = self._journals.record(gpu)
            if record is None:
                log.warning("the journal of %s says nothing: no step was begun, forgetting it", gpu)
                self._journals.discard(gpu)
            elif record.boot_id != boot_id:
                log.info("%s was away when the machine was rebooted, which brought it back", gpu)
                self._journals.discard(gpu)
            else:
                found.append(gpu)
        return found

    async def recover(self, gpu: PciAddress, observe: Observer) -> None:
        """Take over a complete handoff, undo anything else. Never raises: what is stuck stays in its journal."""
        record = self._journals.record(gpu)
        if record is None:
            return
        if record.complete:
            await self._take_over(record)
            return
        log.warning("a %s of %s was interrupted: undoing it", record.operation, gpu, extra={"GPU": str(gpu)})
        try:
            await self._runner.undo(self._journals.open(gpu), "the daemon was interrupted", observe)
        except ProblemError as problem:
            log.error("%s", problem.message, extra={"GPU": str(gpu)})
        except OSError:
            log.exception("the journal of %s cannot be opened", gpu)

    async def _take_over(self, record: Record) -> None:
        """Renew what ended with the last daemon (the sleep inhibitor); report what somebody else undid."""
        for entry in record.entries:
            step = self._steps.get(entry.name)
            if step is None or entry.saved is None:
                continue
            try:
                if await step.holds(self._host, entry.arguments, entry.saved):
                    continue
                if step.volatile:
                    await step.apply(self._host, entry.arguments, entry.saved)
                else:
                    log.warning("%s of %s is no longer in effect: somebody else undid it", entry.name, record.gpu)
            except Exception:
                log.exception("%s of %s cannot be looked at", entry.name, record.gpu)
