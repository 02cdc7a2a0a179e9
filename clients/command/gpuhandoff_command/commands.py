"""The sub-commands."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from gpuhandoff import names
from gpuhandoff_command.arguments import Typed, options_of
from gpuhandoff_command.connection import Connection, plain
from gpuhandoff_command.exits import CallError, Exit
from gpuhandoff_command.follow import JobFollower
from gpuhandoff_command.history import show_history
from gpuhandoff_command.inhibit import inhibit
from gpuhandoff_command.lease import run
from gpuhandoff_command.plan_view import show_plan
from gpuhandoff_command.report import give_report
from gpuhandoff_command.terminal import Terminal
from gpuhandoff_command.views import Outlook, show_holders, show_status
from gpuhandoff_command.watch import watch

OUTLOOK_PATIENCE = 3.0
"""Seconds that `status` waits for what a handoff would meet: Status itself is answered whatever the machine does."""


async def carry_out(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Connect, do what is asked for, leave; return the exit status. Raises CallError."""
    connection = await Connection.open(ask=not arguments.no_ask)
    try:
        return await _dispatch(connection, terminal, arguments)
    finally:
        await connection.close()


async def _dispatch(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "status":
            await _status(connection, terminal)
        case "plan":
            direction = "reclaim" if arguments.reclaim else "handoff"
            options = {} if arguments.reclaim else options_of(arguments)
            preview = await connection.manager("Preview", "ssa{sv}", arguments.gpu, direction, options)
            show_plan(terminal, plain(preview), verbose=arguments.verbose)
        case "holders":
            show_holders(terminal, plain(await connection.manager("Holders", "s", arguments.gpu, timeout=None)))
        case "history":
            moves = await connection.manager("History", "su", arguments.gpu, arguments.count, timeout=None)
            show_history(terminal, plain(moves), verbose=arguments.verbose)
        case "report":
            options = {"names": Typed("b", True)} if arguments.names else {}
            give_report(terminal, await connection.manager("Report", "a{sv}", options, timeout=None), arguments.output)
        case "handoff" | "reclaim" as command:
            follower = JobFollower(connection, terminal, command)
            options = options_of(arguments)
            return await follower.move(command.capitalize(), arguments.gpu, options, wait=not arguments.no_wait)
        case "cancel":
            return await _cancel(connection, terminal, arguments)
        case "watch":
            return await watch(connection, terminal)
        case "run" | "inhibit" as command:
            return await (run if command == "run" else inhibit)(connection, terminal, arguments)
    return Exit.DONE


async def _status(connection: Connection, terminal: Terminal) -> None:
    status: dict[str, Any] = plain(await connection.manager("Status"))
    at_home = [address for address, gpu in status.items() if isinstance(gpu, dict) and gpu["state"] == "host"]
    found = await asyncio.gather(*(_outlook(connection, address) for address in at_home))
    outlooks = {address: outlook for address, outlook in zip(at_home, found, strict=True) if outlook is not None}
    show_status(terminal, status, outlooks)


async def _outlook(connection: Connection, address: str) -> Outlook | None:
    """Return what a handoff would meet; None where that cannot be told quickly, or not without a password."""
    try:
        steps = await connection.manager(
            "Plan", "ssa{sv}", address, "handoff", {}, timeout=OUTLOOK_PATIENCE, interactive=False
        )
    except CallError as error:
        return error if error.name.startswith(names.ERROR_PREFIX) else None
    return list(plain(steps))


async def _cancel(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    status: dict[str, Any] = plain(await connection.manager("Status"))
    wanted = arguments.gpu.lower()
    jobs = {
        address: gpu["job"]
        for address, gpu in status.items()
        if isinstance(gpu, dict) and gpu["job"] != "/" and wanted in {"", address, address.removeprefix("0000:")}
    }
    if not jobs:
        raise CallError(f"{names.ERROR_PREFIX}NotFound", "No job runs that could be cancelled.")
    if len(jobs) > 1:
        raise CallError(f"{names.ERROR_PREFIX}Ambiguous", f"Name the GPU: jobs run on {', '.join(sorted(jobs))}.")
    (job,) = jobs.values()
    return await JobFollower(connection, terminal, "cancel").cancel(job, wait=not arguments.no_wait)
