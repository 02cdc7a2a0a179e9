"""The daemon's side of the workers: hands out operations, gives up waiting at their deadline, remembers what still hangs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import math
import os
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuhandoff.host.door import OverdueError, Pending, Processes, Purpose
from gpuhandoff.model.world import Process
from gpuhandoff.patience import outlast
from gpuhandoff.workshop import LARGEST_MESSAGE, Workshop

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    socket: socket.socket
    pid: int = 0


@dataclass(frozen=True, slots=True)
class _LeftBehind:
    operation: str
    purpose: Purpose
    pid: int
    began: float
    finished: asyncio.Task[None] = field(compare=False)


class Workers:
    """Operations in children; at most one at a time in each, as many children as operations."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._idle: list[_Worker] = []
        self._left_behind: list[_LeftBehind] = []

    async def do(self, description: str, deadline: float, purpose: Purpose, /, **request: str) -> Any:
        """Carry out a request; raises OSError as the kernel said it, or OverdueError after `deadline` seconds.

        While something is pending that this has to wait for, it raises OverdueError at once. A caller that is cancelled
        waits for the kernel all the same, up to the deadline: nothing is left behind unwatched.
        """
        for one in self.pending(purpose):
            raise OverdueError(one.operation, one.seconds, one.process, one.state, one.waits_in)
        task = asyncio.create_task(self._do(description, deadline, purpose, request))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await outlast(task)
            raise

    def pending(self, purpose: Purpose) -> tuple[Pending, ...]:
        """Return what was left behind and has to be waited for."""
        now = asyncio.get_running_loop().time()
        return tuple(
            Pending(one.purpose, one.operation, now - one.began, one.pid, *_whereabouts(one.pid))
            for one in self._left_behind
            if purpose.waits_for(one.purpose)
        )

    async def settled(self, gpu: str) -> None:
        """Wait until nothing is left behind for a GPU."""
        while waiting := {one.finished for one in self._left_behind if one.purpose.gpu == gpu}:
            await asyncio.wait(waiting)

    async def adopt(self, processes: Processes) -> None:
        """Watch the workers of a daemon that was killed: what they do goes on without it.

        A worker at work for a GPU is named after it and the lane, and is where this process is.
        """
        found = await processes.all()
        own = next(process for process in found if process.pid == os.getpid())
        for process in found:
            purpose = Purpose.parse(process.name) if (process.uid, process.cgroup) == (own.uid, own.cgroup) else None
            if purpose is not None and processes.state(process) is not None:
                log.warning("process %d of an earlier daemon still works on %s", process.pid, purpose.gpu)
                self._watch("what an earlier daemon began", purpose, process.pid, _gone(processes, process))

    def close(self) -> None:
        """Let idle workers end."""
        for worker in self._idle:
            worker.socket.close()
        self._idle.clear()
        self._workshop.close()

    async def _do(self, description: str, deadline: float, purpose: Purpose, request: dict[str, str]) -> Any:
        loop = asyncio.get_running_loop()
        worker = self._idle.pop() if self._idle else await self._hire()
        await loop.sock_sendall(worker.socket, json.dumps({"name": purpose.name, **request}).encode())
        answer = asyncio.ensure_future(loop.sock_recv(worker.socket, LARGEST_MESSAGE))
        done, _ = await asyncio.wait({answer}, timeout=deadline)
        if not done:
            self._leave_behind(description, purpose, worker, answer, deadline)
            raise OverdueError(description, deadline, worker.pid, *_whereabouts(worker.pid))
        data = answer.result()
        if not data:
            worker.socket.close()
            raise OSError(5, f"the worker for {description} died")
        self._idle.append(worker)
        result = json.loads(data)
        if "errno" in result:
            raise OSError(result["errno"], result["text"], request.get("path"))
        return result["value"]

    async def _hire(self) -> _Worker:
        worker = _Worker(self._workshop.worker())
        told = await asyncio.get_running_loop().sock_recv(worker.socket, 32)
        if not told:
            worker.socket.close()
            raise OSError(errno.ENOMEM, "no process can be made for it; there is too little memory, or too many processes")
        worker.pid = int(told)
        return worker

    def _leave_behind(
        self, description: str, purpose: Purpose, worker: _Worker, answer: asyncio.Future[bytes], seconds: float
    ) -> None:
        async def finish() -> None:
            with contextlib.suppress(OSError):
                await answer
            worker.socket.close()

        self._watch(description, purpose, worker.pid, finish(), seconds)

    def _watch(self, operation: str, purpose: Purpose, pid: int, end: Coroutine[Any, Any, None], seconds: float = 0) -> None:
        task = asyncio.create_task(end, name=f"waiting for {operation}")
        self._left_behind.append(_LeftBehind(operation, purpose, pid, asyncio.get_running_loop().time() - seconds, task))
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._left_behind = [one for one in self._left_behind if one.finished is not task]


async def _gone(processes: Processes, process: Process) -> None:
    await processes.ended([process], timeout=math.inf)


def _whereabouts(pid: int) -> tuple[str, str]:
    """Return a process's one-letter state and the kernel function it sleeps in."""
    state = waits_in = ""
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    with contextlib.suppress(OSError):
        waits_in = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    return state, waits_in
