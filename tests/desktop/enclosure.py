"""A program in a Debian of its own, and a conversation with it: one JSON object a line, asked and answered.

Everything that it starts, mounts or writes is gone when it ends; only directories bound with `rw:` keep what is put there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.desktop.root import USER

SCRIPT = Path(__file__).with_name("enclosure.sh")
PATIENCE = 900.0
"""Seconds for an answer; what is waited for inside has limits of its own, and says better what did not come."""
LONGEST_LINE = 1 << 24


class InsideError(Exception):
    """The program inside could not do what it was asked for."""


class Conversation:
    """With a program that answers every line on its standard input with one on its standard output."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self._turn = asyncio.Lock()

    async def ask(self, what: str, *, patience: float = PATIENCE, **arguments: Any) -> Any:
        """Ask for something, and return the answer; raises InsideError with what went wrong."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps({"ask": what, **arguments}).encode() + b"\n")
            try:
                line = await asyncio.wait_for(self._process.stdout.readline(), patience)
            except TimeoutError as error:
                raise InsideError(f"{what}: no answer after {patience:.0f} s.\n{self.log()[-4000:]}") from error
        if not line:
            raise InsideError(f"{what}: the program inside has ended.\n{self.log()[-4000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise InsideError(f"{what}: {answer['error']}")
        return answer["answer"]

    def log(self) -> str:
        """Return what everybody inside has written to standard error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")


async def run_enclosed(
    root: Path, program: Sequence[str], *, binds: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a program to its end; return its exit status and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *_command(root, program, binds, environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return process.returncode or 0, printed.decode(errors="replace")


@asynccontextmanager
async def enclosed(
    root: Path,
    program: Sequence[str],
    *,
    log: Path,
    binds: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Conversation]:
    """Run a program in `root` as an ordinary user; `binds`: "[rw:]/here:/there"; `log` gets its standard error."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *_command(root, program, binds, environment or {}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LONGEST_LINE,
        )
    try:
        yield Conversation(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _command(root: Path, program: Sequence[str], binds: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    yield from ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--net")
    yield from (str(SCRIPT), str(root), str(USER), *binds, "--")
    yield from (f"{name}={value}" for name, value in environment.items())
    yield from program
