"""`gpuhandoff doctor`: whether libvirt's guests will get their GPU, and what to do where not."""

from __future__ import annotations

from gpuhandoff_command.exits import Exit
from gpuhandoff_command.hook_checks import Check, look
from gpuhandoff_command.terminal import Terminal, clean

_WORDS = {True: ("ok", "good"), False: ("no", "bad"), None: ("??", "warn")}


def diagnose(terminal: Terminal) -> int:
    """Show every check; the exit status says whether one of them found something wrong."""
    checks = look()
    wrong = [check for check in checks if check.fine is False]
    document = [{"check": check.name, "fine": check.fine, "message": check.message} for check in checks]
    terminal.value({"checks": document, "fine": not wrong})
    for check in checks:
        _show(terminal, check)
    terminal.line(
        "Nothing stands in the way." if not wrong else f"{len(wrong)} of {len(checks)} need to be mended, marked with no."
    )
    return Exit.FAILED if wrong else Exit.DONE


def _show(terminal: Terminal, check: Check) -> None:
    word, colour = _WORDS[check.fine]
    terminal.line(f"{terminal.paint(word, colour)}  {clean(check.message)}")
