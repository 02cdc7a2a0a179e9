"""Runs a plan's steps under the journal, and undoes them.

A handoff that fails, a Reclaim and a recovery at start are one and the same thing: `undo` of a journal.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping

from gpuhandoff.errors import (
    CancelledJobError,
    ProblemError,
    RolledBackError,
    StuckError,
    TimedOutError,
    UnsupportedError,
)
from gpuhandoff.host import Host, OverdueError
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.plan import Plan
from gpuhandoff.model.request import Operation
from gpuhandoff.steps.step import Step
from gpuhandoff.transaction.journal import Entry, Journal, JournalDirectory, Record

log = logging.getLogger(__name__)

BACK = "Everything was put back as it was."

Observer = Callable[[str, str, int, int], None]
"""Told of every phase: step name, phase (apply, done, undo, undone), index from 1, count."""


class Runner:
    """Carries out plans on one host."""

    def __init__(self, host: Host, journals: JournalDirectory, steps: Mapping[str, Step]) -> None:
        self._host = host
        self._journals = journals
        self._steps = steps

    async def run(self, plan: Plan, *, boot_id: str, job: int, vm: str, timeout: float, observe: Observer) -> None:
        """Apply every step of `plan`; raises ProblemError after everything was put back, or StuckError.

        A handoff leaves its journal open: it is what Reclaim undoes. Any other plan has nothing to come back to.
        May be cancelled while steps are applied; what follows is rollback, which runs to its end.
        """
        journal = self._begin(plan, boot_id=boot_id, job=job, vm=vm)
        try:
            async with asyncio.timeout(timeout or None):
                await self._apply_all(plan, job, journal, observe)
        except (Exception, asyncio.CancelledError) as cause:
            if isinstance(cause, asyncio.CancelledError):
                _uncancel()
            failure = _failure(cause, timeout)
            log.warning("%s of %s failed: %s", plan.operation, plan.gpu, failure.message)
            await self._undo(journal, failure.message, observe, overdue=isinstance(cause, OverdueError))
            raise type(failure)(f"{failure.message} {BACK}") from cause
        if plan.operation is Operation.HANDOFF:
            journal.append(held=True)
            journal.close()
        else:
            journal.remove()

    async def undo(self, journal: Journal, why: str, observe: Observer) -> None:
        """Undo everything that `journal` says was begun; raises StuckError when something could not be undone."""
        await self._undo(journal, why, observe, overdue=False)

    def _begin(self, plan: Plan, *, boot_id: str, job: int, vm: str) -> Journal:
        steps = [{"name": step.name, "arguments": step.arguments} for step in plan.steps]
        try:
            return self._journals.create(plan.gpu, boot=boot_id, job=job, operation=str(plan.operation), vm=vm, steps=steps)
        except OSError as error:
            raise UnsupportedError(
                f"Nothing was begun: the journal of {plan.gpu} cannot be kept ({_describe(error)}). Without it nothing "
                "could be undone after a crash."
            ) from error

    async def _apply_all(self, plan: Plan, job: int, journal: Journal, observe: Observer) -> None:
        count = len(plan.steps)
        for index, planned in enumerate(plan.steps):
            step = self._steps[planned.name]
            saved = await step.capture(self._host, planned.arguments)
            journal.append(will=index, saved=saved)
            observe(planned.name, "apply", index + 1, count)
            log.info("%s: %s", planned.name, planned.does, extra={"GPU": str(plan.gpu), "JOB": job, "STEP": planned.name})
            try:
                await step.apply(self._host, planned.arguments, saved)
            except OSError as error:
                raise RolledBackError(f"The step {planned.name} failed: {_describe(error)}.") from error
            journal.append(did=index)
            observe(planned.name, "done", index + 1, count)

    async def _undo(self, journal: Journal, why: str, observe: Observer, *, overdue: bool) -> None:
        """Undo in reverse. Once the GPU is out of reach, steps that need it are left alone, the others still undone."""
        record = journal.read()
        if record is None:
            journal.remove()
            return
        self._note(journal, undoing=why)
        problems: list[tuple[Entry, str]] = []
        pending = self._pending(record) if overdue else None
        if pending is not None:
            problems.append((pending, why))
        out_of_reach = pending is not None
        for entry in record.to_undo():
            step = self._steps.get(entry.name)
            if step is None:
                problems.append((entry, f"this version of gpuhandoff does not know the step {entry.name}"))
                continue
            if out_of_reach and step.needs_gpu:
                continue
            observe(entry.name, "undo", entry.index + 1, len(record.entries))
            log.info("undo of %s", entry.name, extra={"GPU": str(record.gpu), "JOB": record.job, "STEP": entry.name})
            try:
                await step.undo(self._host, entry.arguments, entry.saved or {})
            except Exception as error:
                log.exception(
                    "undo of %s failed", entry.name, extra={"GPU": str(record.gpu), "JOB": record.job, "STEP": entry.name}
                )
                problems.append((entry, _describe(error)))
                out_of_reach = out_of_reach or step.needs_gpu
            else:
                self._note(journal, undone=entry.index)
                observe(entry.name, "undone", entry.index + 1, len(record.entries))
        if problems:
            entry, cause = problems[0]
            message = _stuck_message(str(record.gpu), entry.name, cause)
            self._note(journal, stuck=entry.index, message=message)
            journal.close()
            raise StuckError(message)
        journal.remove()

    def _pending(self, record: Record) -> Entry | None:
        """Return the step whose operation still hangs in the kernel, if it concerns the GPU (kernel.md 1.5)."""
        for entry in record.to_undo():
            if not entry.did:
                step = self._steps.get(entry.name)
                return entry if step is not None and step.needs_gpu else None
        return None

    @staticmethod
    def _note(journal: Journal, **line: object) -> None:
        """Append while undoing: a journal that cannot be written must not keep anything from being undone."""
        try:
            journal.append(**line)
        except OSError as error:
            log.error("the journal cannot be written, undoing all the same: %s", _describe(error))


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
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
            return TimedOutError(f"{_describe(cause)}.")
        case OSError():
            return RolledBackError(f"The machine refused: {_describe(cause)}.")
        case RemoteError():
            return RolledBackError(f"A service of the host did not do its part: {_describe(cause)}.")
    log.error("unexpected failure in a step", exc_info=cause)
    return RolledBackError(f"An internal error ({type(cause).__name__}) stopped the job; the journal has the details.")


def _stuck_message(gpu: str, step: str, cause: str) -> str:
    return (
        f"{gpu} is stuck at {step}: {cause.rstrip('.')}. Remove that cause and call Reclaim again; "
        "if it cannot be removed, a reboot brings everything back."
    )


def _describe(error: BaseException) -> str:
    match error:
        case ProblemError() | RemoteError():
            return error.message.rstrip(".")
        case OverdueError() if error.waits_in:
            return f"{error}; the kernel waits in {error.waits_in} (process {error.process}, state {error.state})"
        case OSError(errno=int(number)):
            where = f" ({error.filename})" if error.filename else ""
            return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}{where}"
    return str(error)
