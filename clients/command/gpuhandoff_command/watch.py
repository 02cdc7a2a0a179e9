"""`gpuhandoff watch`: what happens, as it happens."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from gpuhandoff import names
from gpuhandoff_command.connection import Connection, plain
from gpuhandoff_command.exits import Exit
from gpuhandoff_command.follow import address_of
from gpuhandoff_command.terminal import Terminal, clean
from gpuhandoff_command.views import state_words

_FIELDS = {
    "StateChanged": ("gpu", "state", "reason"),
    "Progress": ("gpu", "step", "phase", "index", "count"),
    "DriverChanged": ("address", "old", "new"),
    "PrepareForHandoff": ("gpu", "start"),
    "JobNew": ("job",),
    "JobRemoved": ("job", "result"),
}


async def watch(connection: Connection, terminal: Terminal) -> int:
    """Print signals until interrupted, until nobody reads any more, or until the bus is gone."""
    stop = asyncio.Event()

    def show(event: str, fields: dict[str, Any], words: str) -> None:
        terminal.value({"event": event, "time": round(time.time(), 3), **fields})
        if words:
            terminal.line(f"{terminal.paint(time.strftime('%H:%M:%S'), 'dim')} {words}")
        if terminal.broken:
            stop.set()

    def receive(member: str, body: list[Any]) -> None:
        fields = dict(zip(_FIELDS.get(member, ()), body, strict=False))
        if "gpu" in fields:
            fields["gpu"] = address_of(fields["gpu"])
        show(member, fields, _words(terminal, member, fields))

    def came_or_went(there: bool) -> None:  # noqa: FBT001  (a callback)
        show("Daemon", {"running": there}, "gpuhandoffd has started" if there else "gpuhandoffd is gone")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with connection.listening(receive, came_or_went):
        for address, gpu in sorted(plain(await connection.manager("Status")).items()):
            if isinstance(gpu, dict):
                receive("StateChanged", [f"{names.GPU_PATH_PREFIX}{_underscores(address)}", gpu["state"], gpu["reason"]])
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({connection.lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return Exit.DONE if stopped in done else Exit.ABSENT


def _words(terminal: Terminal, member: str, fields: dict[str, Any]) -> str:
    arrow = terminal.sign("arrow")
    match member, [clean(value) for value in fields.values()]:
        case "StateChanged", [gpu, state, reason]:
            words, colour = state_words(state)
            return f"{gpu} {terminal.paint(words, colour)}" + (f": {reason}" if reason else "")
        case "DriverChanged", [address, old, new]:
            return f"{address} driver {old or 'none'} {arrow} {new or 'none'}"
        case "Progress", [gpu, step, phase, index, count]:
            return f"{gpu} {index}/{count} {step} {phase}"
        case "PrepareForHandoff", [gpu, start]:
            return f"{gpu} is about to be lent" if start == "True" else f"{gpu} stays, or is back"
        case "JobNew", [job]:
            return f"job {job.rpartition('/')[2]} begins"
        case "JobRemoved", [job, result]:
            return f"job {job.rpartition('/')[2]} ends: {result}"
    return ""


def _underscores(address: str) -> str:
    return address.replace(":", "_").replace(".", "_")
