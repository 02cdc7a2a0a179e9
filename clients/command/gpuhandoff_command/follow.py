"""Following a job from before it exists to its end, with live progress."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

from gpuhandoff import names
from gpuhandoff_command.arguments import Typed
from gpuhandoff_command.connection import Connection
from gpuhandoff_command.exits import GONE, NO_BUS, CallError, Exit, status_of
from gpuhandoff_command.progress import Progress
from gpuhandoff_command.sentences import sentence
from gpuhandoff_command.terminal import Terminal, clean

NO = Typed("b", False)
TICK = 1.0


class JobFollower:
    """One move: asked for, watched, cancelled on Ctrl-C.

    Only Ctrl-C cancels. A terminal that dies (SIGHUP, SIGTERM) may have died of the handoff itself, which ends the desktop.
    """

    def __init__(self, connection: Connection, terminal: Terminal, command: str) -> None:
        self._connection = connection
        self._terminal = terminal
        self._command = command
        self._progress = Progress(terminal)
        self._early: list[tuple[str, list[Any]]] | None = []
        self._job = ""
        self._gpu = ""
        self._ended = asyncio.Event()
        self._gone = asyncio.Event()
        self._left = asyncio.Event()
        self._interrupts = 0
        self._cancelling: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self.steps: set[str] = set()
        """Those that were seen to be done."""

    @property
    def gpu(self) -> str:
        """PCI address of the job's GPU, once there is a job."""
        return address_of(self._gpu)

    async def move(self, member: str, gpu: str, options: dict[str, Typed], *, wait: bool = True) -> Exit:
        """Call Handoff or Reclaim and follow the job to its end; raises CallError when it is refused."""
        async with self._following():
            # A password prompt may take minutes: no time-out.
            call = self._connection.manager(member, "sa{sv}", gpu, {**options, "wait": NO}, timeout=None)
            started = asyncio.ensure_future(call)
            if not await self._first(started):
                started.cancel()
                self._terminal.error("given up before gpuhandoffd had answered; `gpuhandoff status` shows whether it began.")
                return Exit.CANCELLED
            return await self.follow(await started, wait=wait)

    async def cancel(self, job: str, *, wait: bool = True) -> Exit:
        """Cancel somebody's job and follow it to its end."""
        async with self._following():
            await self._connection.cancel(job)
            ended = await self.follow(job, wait=wait)
            return Exit.DONE if ended is Exit.CANCELLED and not self._left.is_set() else ended

    async def follow(self, job: str, *, wait: bool) -> Exit:
        """Show a job until its end."""
        self._job = job
        self._terminal.value({"event": "job", "job": job})
        if not wait:
            self._terminal.line(job)
            return Exit.DONE
        properties = await self._connection.job(job)
        self._gpu = properties["Gpu"]
        self._replay()
        if properties["Result"]:
            self._ended.set()
        ended = asyncio.ensure_future(self._ended.wait())
        await self._first(ended)
        ended.cancel()
        if self._left.is_set() and not self._ended.is_set():
            self._terminal.error("left it to gpuhandoffd; `gpuhandoff watch` follows it.")
            return Exit.CANCELLED
        return self._tell(await self._connection.job(job))

    async def _first(self, wanted: asyncio.Future[Any]) -> bool:
        """Wait until `wanted` is done, or return False when the person leaves; raises CallError when the daemon is gone."""
        gone, left = asyncio.ensure_future(self._gone.wait()), asyncio.ensure_future(self._left.wait())
        try:
            while not (wanted.done() or gone.done() or left.done() or self._connection.lost.done()):
                waiting = {wanted, gone, left, self._connection.lost}
                await asyncio.wait(waiting, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                self._progress.tick()
        finally:
            gone.cancel()
            left.cancel()
        if wanted.done() or left.done():
            return wanted.done()
        self._progress.stop()
        raise CallError(GONE, "") if gone.done() else CallError(NO_BUS, "it went away.")

    def _tell(self, job: dict[str, Any]) -> Exit:
        self._progress.stop()
        result, error = job["Result"], CallError(job["ErrorName"], job["ErrorMessage"])
        status = Exit.DONE if result == "done" else Exit.STUCK if result == "stuck" else status_of(error.name)
        if result == "cancelled":
            status = Exit.CANCELLED
        self._terminal.value(
            {
                "event": "end",
                "job": self._job,
                "gpu": self.gpu,
                "result": result,
                "error": error.name,
                "message": error.message,
                "exit": int(status),
            }
        )
        if status is Exit.DONE:
            where = "is ready for the guest" if job["Operation"] == "handoff" else "is back with the host"
            self._terminal.line(self._terminal.paint(f"{self.gpu} {where}.", "good"))
        else:
            self._terminal.error(sentence(error, self._command))
        return status

    def _on_signal(self, member: str, body: list[Any]) -> None:
        if self._early is not None:
            self._early.append((member, body))
        elif member == "Progress" and body[0] == self._gpu:
            self._show(*body)
        elif member == "PrepareForHandoff" and body == [self._gpu, True]:
            self._waiting = asyncio.create_task(self._tell_wait())
        elif member == "JobRemoved" and body[0] == self._job:
            self._ended.set()

    def _on_owner(self, there: bool) -> None:  # noqa: FBT001  (a callback)
        if not there:
            self._gone.set()

    def _replay(self) -> None:
        """Show what was announced before we knew the job's name, from the job's beginning on."""
        early, self._early = self._early or [], None
        begins = ("JobNew", [self._job])
        for member, body in early[early.index(begins) if begins in early else 0 :]:
            self._on_signal(member, body)

    def _show(self, _: str, step: str, phase: str, index: int, count: int) -> None:
        if phase == "done":
            self.steps.add(step)
        self._terminal.value(
            {"event": "step", "gpu": self.gpu, "step": step, "phase": phase, "index": index, "count": count}
        )
        self._progress.show(step, phase, index, count)

    @contextlib.asynccontextmanager
    async def _following(self) -> AsyncIterator[None]:
        """Hear of the daemon and of Ctrl-C."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            async with self._connection.listening(self._on_signal, self._on_owner):
                yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            for task in (self._cancelling, self._waiting):
                if task is not None:
                    task.cancel()

    def _interrupt(self) -> None:
        """First: ask the daemon to undo. Again, or before there is a job: leave."""
        self._interrupts += 1
        if self._interrupts > 1 or not self._job:
            self._left.set()
            return
        self._terminal.line("Cancelling: what was done is undone. Ctrl-C again leaves that to gpuhandoffd.")
        self._cancelling = asyncio.create_task(self._cancel())

    async def _tell_wait(self) -> None:
        """Say that the job waits before its first step, where it does: for a desktop that may be a minute."""
        with contextlib.suppress(CallError):
            until = (await self._connection.job(self._job)).get("WaitsUntil", 0)
            seconds = round(until / 1e6 - time.time())
            if until and seconds > 0:
                self._terminal.value({"event": "wait", "gpu": self.gpu, "seconds": seconds})
                self._terminal.line(f"Waiting for programs that have asked for that, at most {seconds} s.")

    async def _cancel(self) -> None:
        try:
            await self._connection.cancel(self._job)
        except CallError as error:
            self._terminal.line(clean(error.message))


def address_of(path: str) -> str:
    """Return the PCI address behind a GPU's object path."""
    parts = path.removeprefix(names.GPU_PATH_PREFIX).split("_")
    return "{}:{}:{}.{}".format(*parts) if len(parts) == 4 else clean(path)  # noqa: PLR2004  (domain, bus, device, function)
