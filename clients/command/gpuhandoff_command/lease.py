"""`gpuhandoff run`: a GPU is lent for as long as a command runs."""

from __future__ import annotations

import argparse
import asyncio
import signal

from dbus_next import Variant

from gpuhandoff_command.arguments import options_of
from gpuhandoff_command.connection import Connection
from gpuhandoff_command.exits import Exit
from gpuhandoff_command.follow import JobFollower
from gpuhandoff_command.terminal import Terminal

YES = Variant("b", True)
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


async def run(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Hand off with a lease, run the command, take back when it has ended; return the command's exit status.

    The lease is this connection: should this process be killed, the daemon takes the GPU back by itself.
    """
    program = [one for place, one in enumerate(arguments.program) if place or one != "--"]
    if not program:
        terminal.error("say what to run: gpuhandoff run [--gpu ADDRESS] -- COMMAND")
        return Exit.USAGE
    options = {**options_of(arguments), "lease": YES}
    handed = await JobFollower(connection, terminal).move("Handoff", arguments.gpu, options)
    if handed is not Exit.DONE:
        return handed
    status = await _command(terminal, program)
    back = await JobFollower(connection, terminal).move("Reclaim", arguments.gpu, {})
    return status if back is Exit.DONE else back


async def _command(terminal: Terminal, program: list[str]) -> int:
    try:
        process = await asyncio.create_subprocess_exec(*program)
    except OSError as error:
        terminal.error(f"{program[0]} cannot be run: {error.strerror}.")
        return 127 if isinstance(error, FileNotFoundError) else 126
    loop = asyncio.get_running_loop()

    def pass_on(number: int) -> None:
        if process.returncode is None:
            process.send_signal(number)

    for number in _PASSED_ON:
        loop.add_signal_handler(number, pass_on, number)
    try:
        status = await process.wait()
    finally:
        for number in _PASSED_ON:
            loop.remove_signal_handler(number)
    return 128 - status if status < 0 else status
