"""`gpuhandoff inhibit`: no GPU is handed off for as long as a command runs."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import PurePath

from gpuhandoff_command.connection import Connection
from gpuhandoff_command.exits import CallError, status_of
from gpuhandoff_command.program import look_up, run_program
from gpuhandoff_command.sentences import sentence
from gpuhandoff_command.terminal import Terminal, clean

LONGEST = 200
"""Characters that the daemon takes for who, and for why."""


async def inhibit(connection: Connection, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Take an inhibitor, run the command, return its exit status.

    The inhibitor is this connection's: it ends with this process, however that ends.
    """
    program: list[str] = arguments.program
    look_up(program[0])
    name = clean(PurePath(program[0]).name)  # never its arguments: this is told to others, and gets into history and reports
    who = arguments.who or name
    why = arguments.why or f"{name} is running"
    inhibitor = Inhibitor(connection, terminal, who[:LONGEST], why[:LONGEST], arguments.mode)
    async with connection.listening(lambda *_: None, inhibitor.on_owner):
        await inhibitor.take()
        status = await run_program(terminal, program)
    terminal.value({"event": "command", "status": status})
    return status


class Inhibitor:
    """One that is asked for again from every daemon that comes: none knows those of another."""

    def __init__(self, connection: Connection, terminal: Terminal, who: str, why: str, mode: str) -> None:
        self._connection = connection
        self._terminal = terminal
        self._words = (who, why, mode)
        self._taken = False
        self._again: asyncio.Task[None] | None = None

    async def take(self) -> None:
        """Ask for it; raises CallError."""
        cookie = await self._connection.manager("Inhibit", "sss", *self._words, timeout=None)
        self._taken = True
        who, why, mode = self._words
        self._terminal.value(
            {"event": "inhibited", "cookie": cookie, "who": who, "why": why, "mode": mode, "pid": os.getpid()}
        )

    def on_owner(self, there: bool) -> None:  # noqa: FBT001  (a callback)
        """Be told that the daemon has come or gone, also that it has come because we asked for it."""
        if not self._taken:
            return
        if self._again is not None:
            self._again.cancel()
        if there:
            self._again = asyncio.create_task(self._take_again())
        else:
            self._terminal.error("gpuhandoffd is gone: nothing keeps a GPU here until it is back.")

    async def _take_again(self) -> None:
        try:
            await self.take()
        except CallError as error:
            self._terminal.value(
                {"event": "error", "error": error.name, "message": error.message, "exit": int(status_of(error.name))}
            )
            self._terminal.error(f"nothing keeps a GPU here any more: {sentence(error, 'inhibit')}")
