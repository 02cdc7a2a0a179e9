"""Runs a plan's steps under the journal, and undoes them.

A handoff that fails, a Reclaim and a recovery at start are one and the same thing: `undo` of a journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpuhandoff.errors import (
    CancelledJobError,
    ProblemError,
    RolledBackError,
    StuckError,
    TimedOutError,
    UnsupportedError,
)
from gpuhandoff.host import Host, OverdueError, Purpose
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.plan import Plan
from gpuhandoff.model.request import Operation
from gpuhandoff.steps.step import GoneError, IncompleteError, Step
from gpuhandoff.transaction.diagnosis import describe, ends_by_itself, nor, stuck_sentence, who_holds
from gpuhandoff.transaction.journal import Journal, JournalDirectory
from gpuhandoff.transaction.record import Entry, Record
from gpuhandoff.transaction.shares import Shares

log = logging.getLogger(__name__)

BACK = "Everything was put back as it was."
CARD = "c"
"""The lane of all that touches the card."""

GIVES_BACK = frozenset({"bind-vfio", "resize-bars", "unload-driver"})
"""Steps without whose undo the host does not have the card."""
OF_THE_WHOLE = frozenset({"claim-functions", "load-vfio"})
"""Steps whose undo relies on every function being back, not only on the one that shows the picture: load-vfio leaves the
modules, for good, to a function that still has vfio-pci."""

REFUSALS = (ProblemError, RemoteError, OSError)
EXPECTED = (*REFUSALS, OverdueError)
"""What steps raise where the cause is known; anything else is a mistake of ours."""
PAUSE = 1.0
"""Seconds before an undo that was refused is tried once more: a device that is busy for a moment makes nobody stuck."""

Observer = Callable[[str, str, int, int], None]
"""Told of every phase: step name, phase (apply, done, undo, undone), index from 1, count."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a plan is carried out; all but `timeout` (seconds for all steps, 0 for no limit) is journaled."""

    boot_id: str
    job: int = 0
    vm: str = ""
    lease: str = ""
    guest_timeout: int = 0
    timeout: float = 0


class Runner:
    """Carries out plans on one host."""

    def __init__(self, host: Host, journals: JournalDirectory, steps: Mapping[str, Step]) -> None:
        self._host = host
        self._journals = journals
        self._shares = Shares(journals)
        self._steps = steps

    async def run(self, plan: Plan, terms: Terms, observe: Observer) -> None:
        """Apply every step of `plan`; raises ProblemError after everything was put back, or StuckError.

        A handoff leaves its journal open: it is what Reclaim undoes. Any other plan has nothing to come back to.
        May be cancelled while steps are applied; what follows is rollback, which runs to its end.
        """
        journal = self._begin(plan, terms)
        try:
            async with asyncio.timeout(terms.timeout or None):
                await self._apply_all(plan, terms.job, journal, observe)
            if plan.operation is Operation.HANDOFF:
                journal.append(held=True, at=asyncio.get_running_loop().time())
        except (Exception, asyncio.CancelledError) as cause:
            if isinstance(cause, asyncio.CancelledError):
                _uncancel()
            failure = _failure(cause, terms.timeout)
            log.warning(
                "%s of %s failed: %s",
                plan.operation,
                plan.gpu,
                failure.message,
                extra={"GPU": str(plan.gpu), "JOB": terms.job},
            )
            await self._undo(journal, failure.message, observe)
            raise type(failure)(f"{failure.message} {BACK}") from cause
        if plan.operation is Operation.HANDOFF:
            journal.close()
        else:
            self._forget(journal, plan.gpu)

    async def undo(self, gpu: PciAddress, why: str, observe: Observer) -> None:
        """Undo everything that the journal says was begun; raises StuckError when something could not be undone."""
        try:
            journal = self._journals.open(gpu)
        except OSError as error:
            raise StuckError(
                f"The journal of {gpu} cannot be opened ({describe(error)}), and without it nothing is begun. It is "
                f"{self._journals.path(gpu)}; a reboot brings everything back."
            ) from error
        await self._undo(journal, why, observe)

    def _begin(self, plan: Plan, terms: Terms) -> Journal:
        try:
            return self._journals.create(
                plan.gpu,
                boot=terms.boot_id,
                job=terms.job,
                operation=str(plan.operation),
                vm=terms.vm,
                steps=len(plan.steps),
                nodes=list(plan.nodes),
                lease=terms.lease,
                guest_timeout=terms.guest_timeout,
            )
        except OSError as error:
            raise UnsupportedError(
                f"Nothing was begun: the journal of {plan.gpu} cannot be kept ({describe(error)}). Without it nothing "
                "could be undone after a crash."
            ) from error

    async def _apply_all(self, plan: Plan, job: int, journal: Journal, observe: Observer) -> None:
        count = len(plan.steps)
        for index, planned in enumerate(plan.steps):
            step = self._steps[planned.name]
            host = self._host_for(plan.gpu, step)
            captured = await step.capture(host, planned.arguments)
            saved = self._shares.own(plan.gpu, planned.name, captured)
            journal.append(will=index, step=planned.name, arguments=planned.arguments, saved=saved)
            observe(planned.name, "apply", index + 1, count)
            log.info("%s: %s", planned.name, planned.does, extra={"GPU": str(plan.gpu), "JOB": job, "STEP": planned.name})
            try:
                await step.apply(host, planned.arguments, captured)
            except OSError as error:
                raise RolledBackError(f"The step {planned.name} failed: {describe(error)}.") from error
            journal.append(did=index)
            observe(planned.name, "done", index + 1, count)

    async def _undo(self, journal: Journal, why: str, observe: Observer) -> None:
        """Undo in reverse. Once the GPU is out of reach, steps that need it are left alone, the others still undone.

        The same for those that need all of it while only a sibling is missing: the desktop comes back.
        """
        try:
            record = journal.read()
        except OSError as error:
            journal.close()
            raise StuckError(
                f"The journal of {journal.gpu} cannot be read ({describe(error)}), and without it nothing can be undone. It "
                f"is {journal.path}. Reclaim tries again; a reboot brings everything back."
            ) from error
        if record is None:
            self._forget(journal, journal.gpu)
            return
        self._note(journal, undoing=why)
        problems: list[tuple[Entry, Exception]] = []
        out_of_reach = incomplete = False
        for entry in record.to_undo():
            step = self._steps.get(entry.name)
            if step is not None and ((out_of_reach and step.needs_gpu) or (incomplete and step.name in OF_THE_WHOLE)):
                continue
            try:
                await self._undo_one(record, entry, step, observe)
            except Exception as error:
                log.warning(
                    "undo of %s failed: %s",
                    entry.name,
                    describe(error),
                    extra=_fields(record, entry),
                    exc_info=None if isinstance(error, EXPECTED) else error,
                )
                problems.append((entry, error))
                out_of_reach = out_of_reach or _keeps_away(step, error)
                incomplete = incomplete or isinstance(error, IncompleteError) or entry.name in OF_THE_WHOLE
            else:
                self._note(journal, undone=entry.index)
                observe(entry.name, "undone", entry.index + 1, record.steps)
        if problems:
            raise await self._stuck(journal, record, problems, out_of_reach=out_of_reach)
        self._forget(journal, record.gpu)

    async def _stuck(
        self, journal: Journal, record: Record, problems: list[tuple[Entry, Exception]], *, out_of_reach: bool
    ) -> StuckError:
        """Write down what is stuck, and return it as the error that says so.

        Once the host has the card again, whoever has it open is its desktop, and to blame for nothing.
        """
        (entry, cause), *others = problems
        locked = (step := self._steps.get(entry.name)) is None or step.needs_gpu
        gone = all(isinstance(error, GoneError) for _, error in problems)
        closing = out_of_reach and not isinstance(cause, GoneError)
        holding = await who_holds(self._host, record.nodes) if closing else ()
        message = stuck_sentence(str(record.gpu), entry.name, cause, holding, locked=locked)
        message += "".join(nor(other.name, error) for other, error in others)
        waits = bool(holding) or any(ends_by_itself(error) for _, error in problems)
        self._note(journal, stuck=entry.index, message=message, waits=waits, closing=closing, gone=gone)
        journal.close()
        return StuckError(message, lost=out_of_reach and not holding)

    async def _undo_one(self, record: Record, entry: Entry, step: Step | None, observe: Observer) -> None:
        if step is None:
            raise UnsupportedError(f"this version of gpuhandoff does not know the step {entry.name}")
        host = self._host_for(record.gpu, step)
        for one in host.kernel.pending(_purpose(record.gpu, step)) if step.has_undo else ():
            raise OverdueError(one.operation, one.seconds, one.process, one.state, one.waits_in)
        observe(entry.name, "undo", entry.index + 1, record.steps)
        log.info("undo of %s", entry.name, extra=_fields(record, entry))
        try:
            await self._shares.undo(host, record.gpu, step, entry)
        except REFUSALS as error:
            log.info("undo of %s, once more: %s", entry.name, describe(error), extra=_fields(record, entry))
            await asyncio.sleep(PAUSE)
            await self._shares.undo(host, record.gpu, step, entry)

    def _host_for(self, gpu: PciAddress, step: Step) -> Host:
        return self._host.on_behalf(_purpose(gpu, step))

    def _forget(self, journal: Journal, gpu: PciAddress) -> None:
        try:
            journal.remove()
        except OSError as error:
            raise StuckError(
                f"{BACK} But the journal of {gpu} cannot be removed ({describe(error)}). Remove {journal.path}, or "
                "reboot, before this GPU is handed off again."
            ) from error

    @staticmethod
    def _note(journal: Journal, **line: object) -> None:
        """Append while undoing: a journal that cannot be written must not keep anything from being undone."""
        try:
            journal.append(**line)
        except OSError as error:
            log.error("the journal cannot be written, undoing all the same: %s", describe(error))


def _keeps_away(step: Step | None, error: Exception) -> bool:
    """Tell a failure after which the host may be without its card from one after which it can show its desktop."""
    if step is None or isinstance(error, OverdueError):
        return step is None or step.needs_gpu
    return step.name in GIVES_BACK and not isinstance(error, IncompleteError)


def lane(step: Step) -> str:
    """Return the lane of what a step does: the card's, or its own, by its initials ("fm" of free-memory)."""
    return CARD if step.needs_gpu else "".join(word[0] for word in step.name.split("-"))


def _purpose(gpu: PciAddress, step: Step) -> Purpose:
    return Purpose(str(gpu), lane(step))


def _fields(record: Record, entry: Entry) -> dict[str, object]:
    return {"GPU": str(record.gpu), "JOB": record.job, "STEP": entry.name}


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():  # it may have been cancelled again while the kernel was waited for
        task.uncancel()


def _failure(cause: BaseException, timeout: float) -> ProblemError:
    """Return the cause as the caller is told it."""
    match cause:
        case ProblemError():
            return cause
        case asyncio.CancelledError():
            return CancelledJobError("The job was cancelled.")
        case TimeoutError():
            return TimedOutError(f"The job took longer than the {timeout:g} s it was given.")
        case OverdueError():
            return TimedOutError(f"{describe(cause)}.")
        case OSError():
            return RolledBackError(f"The machine refused: {describe(cause)}.")
        case RemoteError():
            return RolledBackError(f"A service of the host did not do its part: {describe(cause)}.")
    log.error("unexpected failure in a step", exc_info=cause)
    return RolledBackError(f"An internal error ({type(cause).__name__}) stopped the job; the journal has the details.")
