"""gpuhandoff: a thin client of org.gpuhandoff.Manager."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from gpuhandoff_command.terminal import Terminal

DOING = frozenset({"cancel", "handoff", "inhibit", "reclaim", "run"})
"""Commands whose exit status is that of what was done, whether or not it could be told; the others only tell."""


def main(words: Sequence[str] | None = None) -> int:
    """Carry out one command; return the exit status.

    Ctrl-C ends this process at once while it loads, when nothing is begun, and not at all when everything has ended.
    """
    _on_interrupt(signal.SIG_DFL)
    from gpuhandoff_command.arguments import parse  # noqa: PLC0415  (as all that takes time: after the line above)
    from gpuhandoff_command.exits import Exit  # noqa: PLC0415
    from gpuhandoff_command.terminal import Terminal  # noqa: PLC0415

    arguments = parse(sys.argv[1:] if words is None else words)
    terminal = Terminal(as_json=arguments.json)
    try:
        status = _carry_out(_loaded(arguments, terminal), arguments, terminal)
        if terminal.unwritten:
            terminal.error(f"standard output cannot be written to: {terminal.unwritten}.")
            return status if arguments.command in DOING else status or Exit.FAILED
        return status
    finally:
        terminal.close()


def _loaded(arguments: argparse.Namespace, terminal: Terminal) -> Callable[[], Coroutine[Any, Any, int]]:
    """Return what carries the command out, with everything that it needs; --help and mistakes answer without that."""
    if arguments.command == "doctor":
        from gpuhandoff_command.doctor import diagnose  # noqa: PLC0415  (says itself when there is no daemon)

        return lambda: diagnose(terminal, ask=not arguments.no_ask)
    from gpuhandoff_command.commands import carry_out  # noqa: PLC0415  (loads dbus-next)

    return lambda: carry_out(arguments, terminal)


def _carry_out(work: Callable[[], Coroutine[Any, Any, int]], arguments: argparse.Namespace, terminal: Terminal) -> int:
    import asyncio  # noqa: PLC0415

    from gpuhandoff_command.exits import CallError, Exit, status_of  # noqa: PLC0415
    from gpuhandoff_command.sentences import sentence  # noqa: PLC0415

    try:
        _on_interrupt(signal.default_int_handler)  # asyncio cancels what runs
        try:
            return int(asyncio.run(work()))
        finally:
            _on_interrupt(signal.SIG_IGN)
    except CallError as error:
        status = status_of(error.name)
        terminal.value({"event": "error", "error": error.name, "message": error.message, "exit": int(status)})
        terminal.error(sentence(error, arguments.command))
        return int(status)
    except KeyboardInterrupt:
        return int(Exit.CANCELLED)


def _on_interrupt(handler: Any) -> None:
    """Set what Ctrl-C does, unless whoever started us has it ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


if __name__ == "__main__":
    sys.exit(main())
