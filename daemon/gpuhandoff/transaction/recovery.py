"""What a daemon that has just started does with the journals it finds. Unknown means: verify, then undo."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from gpuhandoff.host import Host
from gpuhandoff.host.door import DEADLINE
from gpuhandoff.model.address import PciAddress
from gpuhandoff.steps.step import Step
from gpuhandoff.transaction.diagnosis import describe
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.record import Record
from gpuhandoff.transaction.runner import Observer, Runner

log = logging.getLogger(__name__)

INTERRUPTED = "the daemon was interrupted"


class Recovery:
    """Brings every journal to a known end: kept (the GPU is away, all steps hold) or undone."""

    def __init__(self, host: Host, journals: JournalDirectory, runner: Runner, steps: Mapping[str, Step]) -> None:
        self._host = host
        self._journals = journals
        self._runner = runner
        self._steps = steps

    def found(self, boot_id: str) -> list[PciAddress]:
        """Return the GPUs whose journal has to be looked at.

        Those of another boot are forgotten, as the reboot undid them; those that cannot be understood are set aside, and
        what they were about is what the machine shows: a card on vfio-pci, which Reclaim gives back to its driver.
        """
        return [gpu for gpu in self._journals.addresses() if self._counts(gpu, boot_id)]

    async def recover(self, gpu: PciAddress, observe: Observer) -> None:
        """Take over a complete handoff, undo anything else; raises StuckError when something cannot be undone."""
        record = self._journals.record(gpu)
        if record is None:
            return
        if record.complete:
            await self._take_over(record)
            return
        log.warning("a %s of %s was interrupted: undoing it", record.operation or "move", gpu, extra={"GPU": str(gpu)})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                await self._host.kernel.settled(str(gpu))
        await self._runner.undo(gpu, record.undoing or INTERRUPTED, observe)

    def _counts(self, gpu: PciAddress, boot_id: str) -> bool:
        """Tell whether a journal speaks of this boot; one without a boot id does, as a reboot empties its directory."""
        record = self._journals.record(gpu)
        if record is not None and record.boot_id in {"", boot_id}:
            return True
        try:
            if record is not None:
                log.info("%s was away when the machine was rebooted, which brought it back", gpu)
                self._journals.discard(gpu)
            elif self._journals.is_blank(gpu):
                log.warning("the journal of %s says nothing: no step was begun, forgetting it", gpu)
                self._journals.discard(gpu)
            else:
                log.error("the journal of %s cannot be understood, setting it aside", gpu, extra={"GPU": str(gpu)})
                self._journals.set_aside(gpu)
        except OSError as error:
            log.error("the journal of %s cannot be read: %s", gpu, describe(error), extra={"GPU": str(gpu)})
            self._put_aside(gpu)
        return False

    def _put_aside(self, gpu: PciAddress) -> None:
        try:
            self._journals.set_aside(gpu)
        except OSError as error:
            log.error("nor can it be set aside: %s", describe(error), extra={"GPU": str(gpu)})

    async def _take_over(self, record: Record) -> None:
        """Renew what ended with the last daemon (the sleep inhibitor); report what somebody else undid."""
        for entry in record.entries:
            step = self._steps.get(entry.name)
            if step is None:
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
