"""gpuhandoff: a thin client of org.gpuhandoff.Manager."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from gpuhandoff import names
from gpuhandoff_command.arguments import options_of, parser
from gpuhandoff_command.connection import CallError, Connection, plain
from gpuhandoff_command.exits import Exit, sentence, status_of
from gpuhandoff_command.follow import JobFollower
from gpuhandoff_command.lease import run
from gpuhandoff_command.terminal import Terminal, clean
from gpuhandoff_command.views import show_holders, show_plan, show_status
from gpuhandoff_command.watch import watch


def main(words: Sequence[str] | None = None) -> int:
    """Carry out one command; return the exit status."""
    arguments = parser().parse_args(words)
    terminal = Terminal(as_json=arguments.json)
    try:
        return int(asyncio.run(_carry_out(arguments, terminal)))
    except CallError as error:
        terminal.value({"error": error.name, "message": error.message})
        terminal.error(clean(sentence(error)))
        return int(status_of(error.name))
    except KeyboardInterrupt:
        return int(Exit.CANCELLED)
    except BrokenPipeError:
        return int(Exit.FAILED)


async def _carry_out(arguments: argparse.Namespace, terminal: Terminal) -> int:
    connection = await Connection.open(ask=not arguments.no_ask)
    try:
        return await _dispatch(connection, terminal, arguments)
    finally:
        await connection.close()


async def _dispatch(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "status":
            show_status(terminal, plain(await connection.manager("Status")))
        case "plan":
            direction = "reclaim" if arguments.reclaim else "handoff"
            options = options_of(arguments)
            steps = await connection.manager("Plan", "ssa{sv}", arguments.gpu, direction, options)
            show_plan(terminal, plain(steps))
        case "holders":
            show_holders(terminal, plain(await connection.manager("Holders", "s", arguments.gpu, timeout=None)))
        case "handoff" | "reclaim" as command:
            follower = JobFollower(connection, terminal)
            return await follower.move(
                command.capitalize(), arguments.gpu, options_of(arguments), wait=not arguments.no_wait
            )
        case "cancel":
            await _cancel(connection, terminal, arguments.gpu)
        case "watch":
            return await watch(connection, terminal)
        case "run":
            return await run(connection, terminal, arguments)
    return Exit.DONE


async def _cancel(connection: Connection, terminal: Terminal, gpu: str) -> None:
    status: dict[str, Any] = plain(await connection.manager("Status"))
    jobs = [
        one["job"]
        for address, one in status.items()
        if isinstance(one, dict) and one["job"] != "/" and address.endswith(gpu)
    ]
    if not jobs:
        raise CallError("org.gpuhandoff.Error.NotFound", "No job runs that could be cancelled.")
    for job in jobs:
        await connection.call(job, names.JOB_INTERFACE, "Cancel", timeout=None)
    terminal.line("Cancelled; what was done is undone.")


if __name__ == "__main__":
    sys.exit(main())
