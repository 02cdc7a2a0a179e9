"""gpuhandoff: a thin client of org.gpuhandoff.Manager."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gpuhandoff_command.arguments import parse
from gpuhandoff_command.exits import CallError, Exit, status_of
from gpuhandoff_command.sentences import sentence
from gpuhandoff_command.terminal import Terminal


def main(words: Sequence[str] | None = None) -> int:
    """Carry out one command; return the exit status."""
    arguments = parse(sys.argv[1:] if words is None else words)
    terminal = Terminal(as_json=arguments.json)
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
    finally:
        terminal.close()


if __name__ == "__main__":
    sys.exit(main())
