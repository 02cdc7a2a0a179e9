"""`gpuhandoff run`: a GPU is lent for as long as a command runs."""

from __future__ import annotations

import argparse

from gpuhandoff import names
from gpuhandoff_command.arguments import Typed, options_of
from gpuhandoff_command.connection import Connection, plain
from gpuhandoff_command.exits import CallError, Exit, status_of
from gpuhandoff_command.follow import JobFollower
from gpuhandoff_command.guest_devices import PLACE, places, with_gpu
from gpuhandoff_command.program import look_up, run_program
from gpuhandoff_command.scope import confined, move_out
from gpuhandoff_command.sentences import sentence
from gpuhandoff_command.terminal import Terminal

CONFINING = "confine-host"
"""The step after which slices of the host have fewer CPUs."""
YES = Typed("b", True)
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"


async def run(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Hand off with a lease, run the command, take back when it has ended; return the command's exit status.

    The lease is this connection: should this process be killed, the daemon takes the GPU back by itself.
    """
    program: list[str] = arguments.program
    look_up(program[0])  # before the screen goes dark
    if places(program) > 1:
        raise CallError(INVALID, f"{PLACE} stands for one device of the guest, and may be given once; nothing was done.")
    kept_in = await move_out(connection)
    if kept_in and arguments.cpus:
        raise CallError(
            f"{names.ERROR_PREFIX}Unsupported",
            f"--cpus would confine {program[0]} as well, which would run in {confined()}: it cannot be moved to a scope of "
            f"its own in machine.slice ({kept_in}). Start this as root, or with `systemd-run --slice=machine.slice`; "
            "nothing was done.",
        )
    follower = JobFollower(connection, terminal, "handoff")
    handed = await follower.move("Handoff", arguments.gpu, {**options_of(arguments), "lease": YES})
    if handed is not Exit.DONE:
        return handed
    if kept_in and CONFINING in follower.steps:
        terminal.error(
            f"the CPUs that the host gave up are not for {program[0]} either, which runs in {confined()} ({kept_in})."
        )
    if places(program):
        program = with_gpu(program, await _functions(connection, follower.gpu))
    status = await run_program(terminal, program)
    terminal.value({"event": "command", "status": status})
    back = await _take_back(connection, terminal, follower.gpu, ask=not arguments.no_ask)
    return status or back


async def _functions(connection: Connection, gpu: str) -> list[str]:
    status = plain(await connection.manager("Status"))
    return [str(one) for one in status[gpu]["functions"]]


async def _take_back(connection: Connection, terminal: Terminal, gpu: str, *, ask: bool) -> Exit:
    """Reclaim, over a new connection where the old one was lost."""
    reopened = connection.lost.done()
    try:
        if reopened:
            connection = await Connection.open(ask=ask)
        return await JobFollower(connection, terminal, "reclaim").move("Reclaim", gpu, {})
    except CallError as error:
        if error.name.endswith(".WrongState"):  # somebody else took it back meanwhile
            return Exit.DONE
        status = status_of(error.name)
        terminal.value({"event": "error", "error": error.name, "message": error.message, "exit": int(status)})
        terminal.error(sentence(error, "reclaim"))
        return status
    finally:
        if reopened:
            await connection.close()
