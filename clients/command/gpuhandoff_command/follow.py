"""Following a job from before it exists to its end, with live progress."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from dbus_next import Variant

from gpuhandoff import names
from gpuhandoff_command.connection import CallError, Connection
from gpuhandoff_command.exits import Exit, sentence, status_of
from gpuhandoff_command.terminal import Terminal, clean

_WORDS = {
    "inhibit-sleep": "keep the machine awake",
    "stop-display": "end the desktop",
    "stop-gpu-services": "stop GPU services",
    "settle-holders": "wait until nobody uses the GPU",
    "claim-functions": "reserve the GPU",
    "unbind-consoles": "detach text consoles",
    "unbind-framebuffers": "detach the firmware's framebuffer",
    "unload-driver": "unload the driver",
    "bind-vfio": "bind vfio-pci",
    "confine-host": "confine the host's CPUs",
    "quiet-host": "freeze what may wait",
    "free-memory": "free memory",
    "back-guest-memory": "prepare huge pages",
    "release-functions": "give it to the host's driver",
}
NO = Variant("b", False)
_ENDS = {"done": Exit.DONE, "cancelled": Exit.CANCELLED, "stuck": Exit.STUCK}


class JobFollower:
    """One move: asked for, watched, cancelled on Ctrl-C."""

    def __init__(self, connection: Connection, terminal: Terminal) -> None:
        self._connection = connection
        self._terminal = terminal
        self._ended = asyncio.Event()
        self._removed: dict[str, str] = {}
        self._job = ""
        self._interrupts = 0

    async def move(self, member: str, gpu: str, options: dict[str, Variant], *, wait: bool = True) -> Exit:
        """Call Handoff or Reclaim and follow the job to its end; raises CallError when it is refused."""
        await self._connection.listen(self._on_signal)
        loop = asyncio.get_running_loop()
        lost = asyncio.create_task(self._connection.until_gone())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            # A password prompt may take minutes: no time-out.
            self._job = await self._connection.manager(member, "sa{sv}", gpu, {**options, "wait": NO}, timeout=None)
            if not wait:
                self._terminal.line(self._job)
                self._terminal.value({"job": self._job})
                return Exit.DONE
            if self._job in self._removed:
                self._ended.set()
            ended = asyncio.create_task(self._ended.wait())
            await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            return await self._result(member)
        finally:
            lost.cancel()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _result(self, member: str) -> Exit:
        if self._interrupts > 1:
            self._terminal.error("left it running; `gpuhandoff watch` follows it.")
            return Exit.CANCELLED
        if self._job not in self._removed:
            raise CallError("Disconnected", "The daemon went away in the middle of the job.")
        job = await self._connection.properties(self._job, names.JOB_INTERFACE)
        self._terminal.value(
            {"event": "end", "result": job["Result"], "error": job["ErrorName"], "message": job["ErrorMessage"]}
        )
        if job["Result"] == "done":
            where = "is ready for the guest" if member == "Handoff" else "is back with the host"
            self._terminal.line(self._terminal.paint(f"{address_of(job['Gpu'])} {where}.", "good"))
            return Exit.DONE
        self._terminal.error(clean(sentence(CallError(job["ErrorName"], job["ErrorMessage"]))))
        return _ENDS.get(job["Result"], status_of(job["ErrorName"]))

    def _on_signal(self, _: str, member: str, body: list[Any]) -> None:
        if member == "Progress":
            self._show(*body)
        elif member == "JobRemoved":
            self._removed[body[0]] = body[1]
            if body[0] == self._job:
                self._ended.set()

    def _show(self, gpu: str, step: str, phase: str, index: int, count: int) -> None:
        self._terminal.value(
            {"event": "step", "gpu": address_of(gpu), "step": step, "phase": phase, "index": index, "count": count}
        )
        words = _WORDS.get(step, clean(step))
        if phase in {"undo", "undone"}:
            words = f"undo: {words}"
        sign = self._terminal.sign(phase)
        colour = "good" if phase == "done" else "warn" if phase == "undone" else "dim"
        text = f"{self._terminal.paint(sign, colour)} {index:2}/{count} {words}"
        self._terminal.replace(text, finished=phase in {"done", "undone"})

    def _interrupt(self) -> None:
        """First: ask the daemon to undo. Again: leave it to the daemon."""
        self._interrupts += 1
        if self._interrupts == 1 and self._job:
            self._terminal.line("Cancelling; what was done is undone. Ctrl-C again leaves that to the daemon.")
            self._cancelling = asyncio.create_task(self._cancel())
        else:
            self._interrupts = 2
            self._ended.set()

    async def _cancel(self) -> None:
        try:
            await self._connection.call(self._job, names.JOB_INTERFACE, "Cancel")
        except CallError as error:
            self._terminal.line(clean(error.message))


def address_of(path: str) -> str:
    """Return the PCI address behind a GPU's object path."""
    domain, bus, device, function = path.removeprefix(names.GPU_PATH_PREFIX).split("_")
    return f"{domain}:{bus}:{device}.{function}"
