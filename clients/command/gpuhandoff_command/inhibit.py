"""`gpuhandoff inhibit`: no GPU is handed off for as long as a command runs."""

from __future__ import annotations

import argparse
import os
from pathlib import PurePath

from gpuhandoff_command.connection import Connection
from gpuhandoff_command.exits import Exit
from gpuhandoff_command.program import is_program, run_program
from gpuhandoff_command.terminal import Terminal, clean

LONGEST = 200
"""Characters that the daemon takes for who, and for why."""


async def inhibit(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Take an inhibitor, run the command, return its exit status.

    The inhibitor is this connection's: it ends with this process, however that ends.
    """
    program: list[str] = arguments.program
    if not is_program(terminal, program[0]):
        return Exit.NOT_FOUND
    who = arguments.who or PurePath(program[0]).name
    why = arguments.why or f"{clean(' '.join(program))} is running"
    cookie = await connection.manager("Inhibit", "sss", who[:LONGEST], why[:LONGEST], arguments.mode, timeout=None)
    terminal.value(
        {"event": "inhibited", "cookie": cookie, "who": who, "why": why, "mode": arguments.mode, "pid": os.getpid()}
    )
    status = await run_program(terminal, program)
    terminal.value({"event": "command", "status": status})
    return status
