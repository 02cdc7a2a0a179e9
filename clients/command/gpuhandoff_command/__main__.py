"""gpuhandoff: a thin client of org.gpuhandoff.Manager."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gpuhandoff_command.arguments import parse
from gpuhandoff_command.exits import CallError, Exit, status_of
from gpuhandoff_command.sentences import sentence
from gpuhandoff_command.terminal import Terminal

DOING = frozenset({"cancel", "handoff", "inhibit", "reclaim", "run"})
"""Commands whose exit status is that of what was done, whether or not it could be told; the others only tell."""


def main(words: Sequence[str] | None = None) -> int:
    """Carry out one command; return the exit status."""
    arguments = parse(sys.argv[1:] if words is None else words)
    terminal = Terminal(as_json=arguments.json)
    try:
        status = _carry_out(arguments, terminal)
        if terminal.unwritten:
            terminal.error(f"standard output cannot be written to: {terminal.unwritten}.")
            return status if arguments.command in DOING else status or Exit.FAILED
        return status
    finally:
        terminal.close()


def _carry_out(arguments: argparse.Namespace, terminal: Terminal) -> int:
    import asyncio  # noqa: PLC0415  (--help and mistakes answer without it)

    from gpuhandoff_command.commands import carry_out  # noqa: PLC0415  (loads dbus-next)

    try:
        if arguments.command == "doctor":
            from gpuhandoff_command.doctor import diagnose  # noqa: PLC0415  (says itself when there is no daemon)

            return int(asyncio.run(diagnose(terminal, ask=not arguments.no_ask)))
        return int(asyncio.run(carry_out(arguments, terminal)))
    except CallError as error:
        status = status_of(error.name)
        terminal.value({"event": "error", "error": error.name, "message": error.message, "exit": int(status)})
        terminal.error(sentence(error, arguments.command))
        return int(status)
    except KeyboardInterrupt:
        return int(Exit.CANCELLED)


if __name__ == "__main__":
    sys.exit(main())
