"""gpuhandoff-session: started by the service manager of each user with the graphical session."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import pwd
import signal
import sys
from collections.abc import Sequence

from gpuhandoff_session.bus import CallError, Connection, session_address, system_address
from gpuhandoff_session.logins import is_greeter
from gpuhandoff_session.memory import Memory, state_file
from gpuhandoff_session.service import Session, Setting

COUNTDOWN = 15
LONGEST = 600


def main(words: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="gpuhandoff-session", description=__doc__, allow_abbrev=False)
    meaning = f"seconds that a person has to cancel, 0 to {LONGEST} (default: {COUNTDOWN})"
    parser.add_argument("--countdown", type=_seconds, default=COUNTDOWN, metavar="SECONDS", help=meaning)
    arguments = parser.parse_args(sys.argv[1:] if words is None else words)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        return asyncio.run(serve(arguments.countdown))
    except CallError as error:
        logging.getLogger(__name__).error("%s", error.message)
        return 1


async def serve(countdown: float) -> int:
    """Connect to both buses and serve; return the exit status. Raises CallError."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    system = await Connection.open(system_address())
    try:
        if await is_greeter(system, os.getuid()):
            return 0
        session = await Connection.open(session_address())
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
            setting = Setting(system, session, Memory(state_file()), user, countdown)
            return 0 if await Session(setting).run(stopping) else 1
        finally:
            await session.close()
    finally:
        await system.close()


def _seconds(given: str) -> int:
    if not given.isascii() or not given.isdigit() or int(given) > LONGEST:
        raise argparse.ArgumentTypeError(f"{given[:40]!r} is not a number of seconds from 0 to {LONGEST}")
    return int(given)


if __name__ == "__main__":
    sys.exit(main())
