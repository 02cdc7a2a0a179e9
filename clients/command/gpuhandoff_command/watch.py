"""`gpuhandoff watch`: what happens, as it happens."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from gpuhandoff_command.connection import Connection
from gpuhandoff_command.exits import Exit
from gpuhandoff_command.follow import address_of
from gpuhandoff_command.terminal import Terminal, clean


async def watch(connection: Connection, terminal: Terminal) -> int:
    """Print signals until interrupted or until the bus is gone."""

    def receive(_: str, member: str, body: list[Any]) -> None:
        terminal.value({"event": member, "arguments": body})
        text = _words(member, body)
        if text:
            terminal.line(text)

    def owner(name: str) -> None:
        terminal.value({"event": "Daemon", "running": bool(name)})
        terminal.line("gpuhandoffd has started" if name else "gpuhandoffd is gone")

    await connection.listen(receive)
    await connection.watch_owner(owner)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    lost = asyncio.create_task(connection.until_gone())
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
    return Exit.DONE if stopped in done else Exit.ABSENT


def _words(member: str, body: list[Any]) -> str:
    match member, body:
        case "StateChanged", [gpu, state, reason]:
            return f"{address_of(gpu)} is now {clean(state)}" + (f": {clean(reason)}" if reason else "")
        case "DriverChanged", [address, old, new]:
            return f"{clean(address)}: driver {clean(old) or 'none'} -> {clean(new) or 'none'}"
        case "Progress", [gpu, step, phase, index, count]:
            return f"{address_of(gpu)} {index}/{count} {clean(step)} {clean(phase)}"
        case "PrepareForHandoff", [gpu, start]:
            return f"{address_of(gpu)} is about to go" if start else f"{address_of(gpu)} stays or is back"
        case "JobRemoved", [job, result]:
            return f"job {clean(job.rpartition('/')[2])}: {clean(result)}"
    return ""
