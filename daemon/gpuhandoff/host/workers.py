"""The daemon's side of the workers: hands out operations, gives up waiting at their deadline, remembers what still hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuhandoff.host.door import OverdueError
from gpuhandoff.host.workshop import LARGEST_MESSAGE, Workshop


@dataclass(slots=True)
class _Worker:
    socket: socket.socket
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """An operation that was overdue and has not returned yet."""

    operation: str
    pid: int
    finished: asyncio.Task[None] = field(compare=False)


class Workers:
    """Operations in children; at most one at a time in each, as many children as operations."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._idle: list[_Worker] = []
        self.pending: list[Pending] = []

    async def do(self, description: str, deadline: float, **request: str) -> Any:
        """Carry out a request; raises OSError as the kernel said it, or OverdueError after `deadline` seconds.

        A caller that is cancelled waits for the kernel all the same, up to the deadline: nothing is left behind unwatched.
        """
        task = asyncio.create_task(self._do(description, deadline, request))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()
            raise

    def close(self) -> None:
        """Let idle workers end."""
        for worker in self._idle:
            worker.socket.close()
        self._idle.clear()
        self._workshop.close()

    async def _do(self, description: str, deadline: float, request: dict[str, str]) -> Any:
        loop = asyncio.get_running_loop()
        worker = self._idle.pop() if self._idle else await self._hire()
        await loop.sock_sendall(worker.socket, json.dumps(request).encode())
        answer = asyncio.ensure_future(loop.sock_recv(worker.socket, LARGEST_MESSAGE))
        done, _ = await asyncio.wait({answer}, timeout=deadline)
        if not done:
            self._leave_behind(description, worker, answer)
            raise OverdueError(description, deadline, worker.pid, *_whereabouts(worker.pid))
        data = answer.result()
        if not data:
            worker.socket.close()
            raise OSError(5, f"the worker for {description} died")
        self._idle.append(worker)
        result = json.loads(data)
        if "errno" in result:
            raise OSError(result["errno"], result["text"])
        return result["value"]

    async def _hire(self) -> _Worker:
        worker = _Worker(self._workshop.worker())
        worker.pid = int(await asyncio.get_running_loop().sock_recv(worker.socket, 32))
        return worker

    def _leave_behind(self, description: str, worker: _Worker, answer: asyncio.Future[bytes]) -> None:
        async def finish() -> None:
            with contextlib.suppress(OSError):
                await answer
            worker.socket.close()
            self.pending = [one for one in self.pending if one.finished is not task]

        task = asyncio.create_task(finish(), name=f"waiting for {description}")
        self.pending.append(Pending(description, worker.pid, task))


def _whereabouts(pid: int) -> tuple[str, str]:
    """Return a process's one-letter state and the kernel function it sleeps in."""
    state = waits_in = ""
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    with contextlib.suppress(OSError):
        waits_in = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    return state, waits_in
