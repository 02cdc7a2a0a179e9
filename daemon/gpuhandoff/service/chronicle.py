"""Keeps history: notes moves as they begin and end, in memory and in one file, and tells them.

A disk that fails, is full or does not answer is complained about once, and never stands in the way of a move.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

from gpuhandoff.errors import CancelledJobError, StuckError
from gpuhandoff.history import line
from gpuhandoff.history.experience import experience
from gpuhandoff.history.file import LARGE, HistoryFile
from gpuhandoff.history.move import DONE, REFUSED, STUCK, Move
from gpuhandoff.history.past import MOVES, REFUSALS, fold, newest, tell
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation, Why
from gpuhandoff.model.verdict import Experience
from gpuhandoff.model.world import Gpu
from gpuhandoff.service.jobs import Job

PATIENCE = 2.0
"""Seconds that a move waits for the disk to have its beginning."""
LINES = 4 * (MOVES + REFUSALS)
"""In the file, from which on it is written anew: each move has two."""

_TAKEN_OVER = "gpuhandoffd ended before it could write this down. The next one found everything in place."

log = logging.getLogger(__name__)


class Chronicle:
    """The history of this machine's GPUs; without a directory it is forgotten when the daemon ends.

    `gpu_at` tells what is known of a GPU now, None when it is gone.
    """

    def __init__(self, directory: Path | None, gpu_at: Callable[[PciAddress], Gpu | None]) -> None:
        self._file = HistoryFile(directory) if directory is not None else None
        self._gpu_at = gpu_at
        self._boot_id = ""
        self._kernel = ""
        self._moves: list[Move] = []
        self._running: dict[int, Move] = {}
        self._again: set[int] = set()
        """Jobs that try once more what is stuck."""
        self._turn = asyncio.Lock()
        self._writing: set[asyncio.Task[None]] = set()
        self._known = False
        """Whether all that the file says is in memory: else it must not be replaced by that."""
        self._lines = 0
        self._size = 0
        self._complained = False
        self._experiences: dict[PciAddress, Experience] = {}
        """Derived from the moves, until one is added."""

    async def open(self, boot_id: str, kernel: str) -> None:
        """Read what earlier daemons wrote. `kernel` is the release that runs."""
        self._boot_id = boot_id
        self._kernel = kernel
        self._experiences.clear()
        if self._file is not None:
            await self._soon(self._read(self._file))

    async def begin(self, job: Job) -> None:
        """Note that a move begins, on the disk before its first step: then a power cut cannot hide it."""
        job.course.begun = asyncio.get_running_loop().time()
        before = self._newest(job.gpu)
        if job.request.why is Why.UNSTUCK and before is not None and before.outcome == STUCK:
            self._again.add(job.number)  # tried for days it would fill the history: noted at its end, if that is a new one
            return
        self._running[job.number] = move = _through_line(self._begun(job))
        self._remember(move)
        await self._keep(move)

    def end(self, job: Job) -> None:
        """Note how a job ended: a move, or a request that was refused. Nothing of what began nothing and was no refusal."""
        now = asyncio.get_running_loop().time()
        begun = self._running.pop(job.number, None)
        again = job.number in self._again
        self._again.discard(job.number)
        refused = begun is None and not again
        if refused and (job.problem is None or job.request.options.dry_run or isinstance(job.problem, CancelledJobError)):
            return
        move = _through_line(
            replace(
                begun or self._begun(job),
                outcome=REFUSED if refused else job.result,
                seconds=job.course.seconds(now),
                steps=job.course.steps(now),
                message=job.problem.message if job.problem is not None else "",
                lost=isinstance(job.problem, StuckError) and job.problem.lost,
            )
        )
        if refused and self._moves and move.repeats(self._moves[-1]):
            return
        before = self._newest(job.gpu)
        if again and before is not None and (move.outcome, move.message) == (STUCK, before.message):
            return
        self._remember(move)
        if self._file is not None:
            self._task(self._write(self._file, move))

    async def taken_over(self, gpu: PciAddress) -> None:
        """Note the end of the handoff that an earlier daemon of this boot completed, and perhaps could not note."""
        found = self._newest(gpu)
        if found is None or found.outcome or found.boot_id != self._boot_id or found.operation != Operation.HANDOFF:
            return
        move = replace(found, outcome=DONE, message=_TAKEN_OVER)
        self._remember(move)
        await self._keep(move)

    def guest_came(self, gpu: PciAddress) -> None:
        """Note that another virtual machine has the card: only what one has used says whether it comes back from them."""
        handoffs = (move for move in reversed(self._moves) if move.gpu == gpu and move.operation == Operation.HANDOFF)
        found = next((move for move in handoffs if move.outcome != REFUSED), None)
        if found is None or found.boot_id != self._boot_id:
            return
        running = next((number for number, move in self._running.items() if move.key == found.key), None)
        move = replace(found, guests=found.guests + 1)
        if running is not None:
            self._running[running] = move
        self._remember(move)
        if self._file is not None:
            self._task(self._write(self._file, move))

    def experience(self, gpu: Gpu) -> Experience:
        """Return what the moves of a card, in its place, tell about its way back from guests."""
        if gpu.address not in self._experiences:
            told = [move for move in reversed(self.moves(gpu.address, 0)) if move.outcome != REFUSED]
            self._experiences[gpu.address] = experience(told, gpu.display.identity, self._boot_id)
        return self._experiences[gpu.address]

    def moves(self, gpu: PciAddress | None, count: int) -> list[Move]:
        """Return the newest `count` moves of a GPU or of all, newest first; 0 are all that are remembered."""
        told = tell(self._moves, self._boot_id, {move.key for move in self._running.values()})
        found = [move for move in told if gpu is None or move.gpu == gpu]
        return found[:count] if count else found

    async def close(self) -> None:
        """Wait, not for long, until the disk has everything."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=PATIENCE)

    def _newest(self, gpu: PciAddress) -> Move | None:
        """Return the last move of a GPU, refusals aside."""
        return next((move for move in reversed(self._moves) if move.gpu == gpu and move.outcome != REFUSED), None)

    def _begun(self, job: Job) -> Move:
        request = job.request
        gpu = self._gpu_at(job.gpu)
        return Move(
            boot_id=self._boot_id,
            job=job.number,
            began=job.started,
            gpu=job.gpu,
            name=gpu.name if gpu is not None else "",
            operation=str(request.operation),
            why=str(request.why),
            vm=request.options.vm,
            uid=job.uid,
            card=gpu.display.identity if gpu is not None else "",
            kernel=self._kernel,
        )

    def _remember(self, move: Move) -> None:
        self._moves = newest(fold([*self._moves, move]))
        self._experiences.clear()

    async def _keep(self, move: Move) -> None:
        if self._file is not None:
            await self._soon(self._write(self._file, move))

    async def _soon(self, work: Coroutine[None, None, None]) -> None:
        """Wait for work on the disk as long as that is reasonable; it goes on all the same."""
        _, overdue = await asyncio.wait({self._task(work)}, timeout=PATIENCE)
        if overdue:
            self._complain(f"the disk has not answered for {PATIENCE:g} s")

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _read(self, file: HistoryFile) -> None:
        async with self._turn:
            try:
                lines = await asyncio.to_thread(file.lines)
            except OSError as error:
                self._complain(error)
                return
            found = [line.read(data) for data in lines]
            earlier = [move for move in found if move is not None]
            if len(earlier) < len(found):
                log.warning("%d lines of the history make no sense; the others are kept", len(found) - len(earlier))
            self._moves = newest(fold([*earlier, *self._moves]))
            self._experiences.clear()
            self._lines = len(lines)
            self._size = sum(len(data) for data in lines)
            self._known = True

    async def _write(self, file: HistoryFile, move: Move) -> None:
        """Append a move, or write the file anew when it has grown: one after the other, in the order of the calls."""
        async with self._turn:
            try:
                if self._known and (self._lines >= LINES or self._size > LARGE):
                    lines = [line.write(one) for one in self._moves]
                    self._size = await asyncio.to_thread(file.replace, lines)
                    self._lines = len(lines)
                else:
                    self._size = await asyncio.to_thread(file.append, line.write(move), flush=move.outcome != REFUSED)
                    self._lines += 1
            except OSError as error:
                self._complain(error)
            else:
                self._complained = False

    def _complain(self, cause: object) -> None:
        if not self._complained:
            log.warning("the history cannot be kept on the disk (%s). Moves go on without it", cause)
        self._complained = True


def _through_line(move: Move) -> Move:
    """Return a move as the file would tell it: what is remembered is what was written."""
    return line.read(line.write(move)) or move
