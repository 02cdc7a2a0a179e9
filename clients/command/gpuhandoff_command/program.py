"""A program that is started in between: it gets our signals, and its exit status becomes ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

from gpuhandoff_command.exits import NO_PROGRAM, NOT_RUN, CallError, Exit
from gpuhandoff_command.terminal import Terminal, clean

FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (*FROM_TERMINAL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def look_up(name: str) -> None:
    """Raise CallError where there is no such program."""
    if shutil.which(name) is None:
        raise CallError(NO_PROGRAM, f"{name} is no program that can be run; nothing was done.")


async def run_program(terminal: Terminal, program: list[str]) -> int:
    """Run a program to its end; return its exit status, or 128 and the signal that ended it."""
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
        message = f"{program[0]} cannot be run: {error.strerror}."
        terminal.value({"event": "error", "error": NOT_RUN, "message": message, "exit": int(Exit.CANNOT_RUN)})
        terminal.error(clean(message))
        return Exit.CANNOT_RUN
    finally:
        for number in PASSED_ON:
            loop.remove_signal_handler(number)
    return 128 - status if status < 0 else status


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
