"""Jobs: what runs, for whom, how far it is. One a GPU at a time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace

from gpuhandoff.errors import (
    BusyError,
    CancelledJobError,
    NotFoundError,
    ProblemError,
    StuckError,
    UnsupportedError,
    WrongStateError,
)
from gpuhandoff.history.course import Course
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation, Request, Why
from gpuhandoff.names import JOB_INTERFACE, JOB_PATH_PREFIX, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.service.paths import gpu_path

log = logging.getLogger(__name__)

KEPT_OF_ONE_USER = 32
"""Of more that have ended, the oldest are forgotten before their time."""
KEPT = 60.0
"""Seconds that an ended job's object stays readable."""


class Job:
    """One move of one GPU. `finished` is done when it has ended, whatever way."""

    def __init__(self, number: int, request: Request, gpu: PciAddress, uid: int) -> None:
        self.number = number
        self.path = f"{JOB_PATH_PREFIX}{number}"
        self.request = request
        self.gpu = gpu
        self.uid = uid
        self.started = time.time_ns() // 1000
        self.step = ""
        self.progress = 0.0
        self.result = ""
        self.problem: ProblemError | None = None
        self.undoing = request.operation is Operation.RECLAIM
        self.complete = False
        """Whether every step is in effect: what follows is only looking."""
        self.desktops: Mapping[int, str] = {}
        """Users whose desktops it ends, by user id, as it was seen when it began."""
        self.asked: Collection[str] = ()
        """Callers that answer for such a desktop and may object, for as long as it waits."""
        self.waits_until = 0
        """Microseconds since the epoch; 0 when it waits for nobody."""
        self.desktops_until = 0
        """The same, of the desktops that it ends."""
        self.objection = ""
        self.course = Course()
        self.finished = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def joined_by(self, request: Request) -> bool:
        """Tell whether this job does all that another request asks for, so that its caller can wait for it."""
        own = self.request
        if own.operation is not request.operation:
            return False
        if own.operation is Operation.HANDOFF and (self.undoing or (request.options.lease and own.sender != request.sender)):
            return False
        return replace(own.options, wait=True, interactive=False) == replace(request.options, wait=True, interactive=False)

    @property
    def cancelable(self) -> bool:
        """Whether Cancel can still do something: what undoes is never stopped half-way."""
        return not self.result and not self.undoing and not self.complete

    def properties(self) -> dict[str, object]:
        """Return the bus properties."""
        return {
            "Operation": str(self.request.operation),
            "Gpu": gpu_path(self.gpu),
            "Step": self.step,
            "Progress": self.progress,
            "Result": self.result,
            "ErrorName": self.problem.name if self.problem else "",
            "ErrorMessage": self.problem.message if self.problem else "",
            "StartTime": self.started,
            "StartedByUid": self.uid,
            "Cancelable": self.cancelable,
            "Vm": self.request.options.vm,
            "Desktops": sorted(self.desktops.values()),
            "WaitsUntil": self.waits_until,
            "DesktopsUntil": self.desktops_until,
        }


class Jobs:
    """The running job of each GPU, and those that ended a short while ago."""

    def __init__(self, tree: ObjectTree, changed: Callable[[PciAddress], None], ended: Callable[[Job], None]) -> None:
        self._tree = tree
        self._changed = changed
        self._ended = ended
        self._numbers = itertools.count(1)
        self._running: dict[PciAddress, Job] = {}
        self._known: dict[str, Job] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self._ending = False
        """Whether the daemon is being stopped: nothing is lent any more, and what comes back is waited for."""
        self._over = False
        """Whether nobody waits for a job any more."""

    def running(self, gpu: PciAddress) -> Job | None:
        """Return the job that works on `gpu` now."""
        return self._running.get(gpu)

    @property
    def any_running(self) -> bool:
        """Whether any job runs."""
        return bool(self._running)

    async def recovered(self, gpu: PciAddress) -> None:
        """Wait until this daemon has dealt with what an earlier one left of a GPU."""
        job = self._running.get(gpu)
        if job is not None and job.request.why is Why.RECOVERY:
            await job.finished.wait()

    def find(self, path: str) -> Job:
        """Return the job at an object path, or raise NotFoundError."""
        job = self._known.get(path)
        if job is None:
            raise NotFoundError(f"There is no job at {path[:80]}.")
        return job

    def start(self, request: Request, gpu: PciAddress, uid: int, work: Callable[[Job], Awaitable[None]]) -> Job:
        """Start `work` as a job on `gpu`; the same request joins the job that runs already, another one is Busy."""
        running = self._running.get(gpu)
        if running is not None:
            if running.joined_by(request):
                return running
            raise BusyError(
                f"{gpu} is busy with a {running.request.operation} ({running.step or 'starting'}). Wait for its end, "
                "or cancel it."
            )
        if self._over or (self._ending and request.operation is Operation.HANDOFF):
            raise BusyError("gpuhandoffd is being stopped. Nothing was changed; ask again when it has been started.")
        job = Job(next(self._numbers), request, gpu, uid)
        self._running[gpu] = job
        self._known[job.path] = job
        self._tree.publish(job.path, JOB_INTERFACE, job.properties())
        self._tree.emit(MANAGER_PATH, MANAGER_INTERFACE, "JobNew", job.path)
        self._changed(gpu)
        job.task = asyncio.create_task(self._carry_out(job, work), name=f"job {job.number}")
        job.task.add_done_callback(lambda _: self._never_begun(job))
        return job

    def refuse(self, request: Request, gpu: PciAddress, uid: int, problem: ProblemError) -> None:
        """Note a request that was refused before there was a job for it: none is published, history has it all the same."""
        job = Job(next(self._numbers), request, gpu, uid)
        job.problem, job.result = problem, "failed"
        self._ended(job)

    def cancel(self, job: Job) -> None:
        """Stop a handoff; what it did is undone before it ends. Raises WrongStateError when it is too late."""
        if job.result:
            raise WrongStateError(f"Job {job.number} has ended already: {job.result}.")
        if not job.cancelable or job.task is None:
            what = "complete: reclaim the GPU instead" if job.complete else "undoing, which is never stopped half-way"
            raise WrongStateError(f"Job {job.number} cannot be cancelled any more, it is {what}.")
        job.undoing = True
        self.publish(job)
        job.task.cancel()

    def object(self, job: Job, who: str, why: str) -> None:
        """Cancel a handoff that has touched nothing yet, because somebody whose desktop it would end does not want that."""
        self.cancel(job)
        job.objection = f"{who}, whose desktop would have ended, objects: {why.rstrip('.')}. Nothing was changed."
        log.info("job %d: %s", job.number, job.objection, extra={"GPU": str(job.gpu), "JOB": job.number})

    def waits(self, job: Job, seconds: float, for_desktops: float = 0, asked: Collection[str] = ()) -> None:
        """Announce for how long a job waits at most before its first step, and for whose answers; 0: not (any longer)."""
        now = time.time_ns() // 1000
        job.waits_until, job.desktops_until = (now + int(one * 1e6) if one else 0 for one in (seconds, for_desktops))
        job.asked = asked
        self.publish(job)

    def publish(self, job: Job) -> None:
        """Announce what changed about a job."""
        self._tree.update(job.path, JOB_INTERFACE, job.properties())

    def observe(self, job: Job, step: str, phase: str, index: int, count: int) -> None:
        """Follow a step (an Observer of the transaction room)."""
        job.course.note(step, phase, asyncio.get_running_loop().time())
        turned = phase == "undo" and not job.undoing
        job.undoing = job.undoing or phase == "undo"
        job.step = step
        done = index - 1 if phase == "apply" else index
        job.progress = done / count if phase in {"apply", "done"} else 1 - (index - (phase == "undone")) / count
        self.publish(job)
        self._tree.emit(MANAGER_PATH, MANAGER_INTERFACE, "Progress", gpu_path(job.gpu), step, phase, index, count)
        if turned:
            self._changed(job.gpu)

    def cancel_all(self) -> None:
        """Cancel what can be cancelled; the rest runs to its end."""
        for job in list(self._running.values()):
            if job.cancelable:
                self.cancel(job)

    async def settle(self) -> None:
        """Cancel what can be cancelled and wait until every job has ended; none is begun afterwards."""
        self._ending = True
        while self._running:
            self.cancel_all()
            await asyncio.gather(*(job.finished.wait() for job in list(self._running.values())))
        self._over = True
        for handle in self._expiry.values():
            handle.cancel()

    async def _carry_out(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        try:
            await work(job)
            job.result = "done"
        except asyncio.CancelledError:
            job.problem = CancelledJobError(job.objection or "The job was cancelled before anything was changed.")
            job.result = "cancelled"
        except ProblemError as problem:
            job.problem = problem
            job.result = _result(job, problem)
        except RemoteError as error:
            job.problem = UnsupportedError(f"Nothing was changed: a service of the host did not answer ({error.message}).")
            job.result = "failed"
        except OSError as error:
            job.problem = UnsupportedError(f"Nothing was changed: the machine could not be looked at ({error}).")
            job.result = "failed"
        except Exception as error:
            log.exception("job %d failed", job.number, extra={"GPU": str(job.gpu), "JOB": job.number})
            job.problem = ProblemError(f"An internal error ({type(error).__name__}); the daemon's log has the details.")
            job.result = "failed"
        finally:
            self._end(job)

    def _never_begun(self, job: Job) -> None:
        """End a job whose task was cancelled in the turn of the loop in which it was made: nothing of it ran."""
        if not job.finished.is_set():
            job.problem = CancelledJobError(job.objection or "The job was cancelled before anything was changed.")
            job.result = "cancelled"
            self._end(job)

    def _end(self, job: Job) -> None:
        del self._running[job.gpu]
        job.result = job.result or "failed"
        job.step = ""
        job.progress = 1.0
        self.publish(job)
        self._changed(job.gpu)
        job.finished.set()
        self._tree.emit(MANAGER_PATH, MANAGER_INTERFACE, "JobRemoved", job.path, job.result)
        loop = asyncio.get_running_loop()
        self._expiry[job.path] = loop.call_later(KEPT, self._forget, job.path)
        of_the_same = [path for path in self._expiry if self._known[path].uid == job.uid]
        for path in of_the_same[:-KEPT_OF_ONE_USER]:
            self._expiry[path].cancel()
            self._forget(path)
        self._ended(job)

    def _forget(self, path: str) -> None:
        self._tree.withdraw(path)
        self._known.pop(path, None)
        self._expiry.pop(path, None)


def _result(job: Job, problem: ProblemError) -> str:
    match problem:
        case StuckError():
            return "stuck"
        case CancelledJobError():
            return "cancelled"
    rolled_back = job.undoing and job.request.operation is Operation.HANDOFF
    return "rolled-back" if rolled_back else "failed"
