"""`gpuhandoff run`: a GPU is lent for as long as a command runs."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal

from gpuhandoff_command.arguments import Typed, options_of
from gpuhandoff_command.connection import Connection, plain
from gpuhandoff_command.exits import CallError, Exit, status_of
from gpuhandoff_command.follow import JobFollower
from gpuhandoff_command.guest_devices import PLACE, places, with_gpu
from gpuhandoff_command.scope import confined, move_out
from gpuhandoff_command.sentences import sentence
from gpuhandoff_command.terminal import Terminal

CONFINING = "confine-host"
"""The step after which slices of the host have fewer CPUs."""
YES = Typed("b", True)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (*FROM_TERMINAL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


async def run(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Hand off with a lease, run the command, take back when it has ended; return the command's exit status.

    The lease is this connection: should this process be killed, the daemon takes the GPU back by itself.
    """
    program: list[str] = arguments.program
    if shutil.which(program[0]) is None:  # before the screen goes dark
        terminal.error(f"{program[0]} is no program that can be run; nothing was done.")
        return Exit.NOT_FOUND
    if places(program) > 1:
        terminal.error(f"{PLACE} stands for one device of the guest, and may be given once; nothing was done.")
        return Exit.USAGE
    kept_in = await move_out(connection)
    if kept_in and arguments.cpus:
        terminal.error(
            f"--cpus would confine {program[0]} as well, which would run in {confined()}: it cannot be moved to a scope of "
            f"its own in machine.slice ({kept_in}). Start this as root, or with `systemd-run --slice=machine.slice`; "
            "nothing was done."
        )
        return Exit.REFUSED
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
    status = await _command(terminal, program)
    terminal.value({"event": "command", "status": status})
    back = await _take_back(connection, terminal, follower.gpu, ask=not arguments.no_ask)
    return status or back


async def _functions(connection: Connection, gpu: str) -> list[str]:
    status = plain(await connection.manager("Status"))
    return [str(one) for one in status[gpu]["functions"]]


async def _command(terminal: Terminal, program: list[str]) -> int:
    loop = asyncio.get_running_loop()
    process: asyncio.subprocess.Process | None = None
    early: list[int] = []

    def pass_on(number: int) -> None:
        # Ctrl-C and Ctrl-\ of our terminal reach the command, too: it is in the same process group.
        if process is None:
            early.append(number)
        elif process.returncode is None and not (number in FROM_TERMINAL and _in_foreground()):
            process.send_signal(number)

    for number in PASSED_ON:
        loop.add_signal_handler(number, pass_on, number)
    try:
        process = await asyncio.create_subprocess_exec(*program)
        for early_one in early:
            process.send_signal(early_one)
        status = await process.wait()
    except OSError as error:
        terminal.error(f"{program[0]} cannot be run: {error.strerror}.")
        return Exit.CANNOT_RUN
    finally:
        for number in PASSED_ON:
            loop.remove_signal_handler(number)
    return 128 - status if status < 0 else status


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
        terminal.value({"event": "error", "error": error.name, "message": error.message})
        terminal.error(sentence(error, "reclaim"))
        return status_of(error.name)
    finally:
        if reopened:
            await connection.close()


def _in_foreground() -> bool:
    """Whether this process group is the one that its terminal's keys signal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
