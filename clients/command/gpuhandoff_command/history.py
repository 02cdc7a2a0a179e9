"""What `gpuhandoff history` looks like."""

from __future__ import annotations

import textwrap
import time
from typing import Any

from gpuhandoff_command.progress import WORDS
from gpuhandoff_command.sentences import translate
from gpuhandoff_command.terminal import Terminal, clean

_OUTCOMES = {
    "done": ("done", "done", "good"),
    "rolled-back": ("failed", "failed, all of it undone", "bad"),
    "cancelled": ("undone", "cancelled, all of it undone", "warn"),
    "failed": ("failed", "failed", "bad"),
    "stuck": ("failed", "STUCK", "bad"),
    "refused": ("failed", "refused", "warn"),
    "running": ("apply", "under way", "warn"),
    "interrupted": ("failed", "interrupted", "bad"),
}
"""Sign, words, colour."""
_WHY = {
    "lease-ended": "the lease ended",
    "guest-ended": "the guest ended",
    "guest-missing": "no guest came",
    "gpu-gone": "it left the bus",
    "unstuck": "what it waited for is gone",
}
_PHASES = {"done": ("done", "good"), "undone": ("undone", "warn")}
_TOLD_BY_OUTCOME = {"The job was cancelled. Everything was put back as it was."}
_INDENT = "    "
_NARROWEST = 40
_WIDEST = 40


def show_history(terminal: Terminal, moves: list[dict[str, Any]], *, verbose: bool) -> None:
    """Show moves as they come, newest first."""
    terminal.value({"moves": [{**move, "steps": [_step_document(one) for one in move["steps"]]} for move in moves]})
    if not moves:
        terminal.line("Nothing has been done yet.")
    width = min(max((len(_what(move)) for move in moves), default=0), _WIDEST)
    for move in moves:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(move["began"] / 1e6))
        terminal.line(headline(terminal, when, move, width=width))
        _more(terminal, move, verbose=verbose)


def headline(terminal: Terminal, when: str, move: dict[str, Any], *, width: int = 0) -> str:
    """Return a move in one line: when, which, what (`width` columns), how it ended, how long it took."""
    sign, words, colour = _OUTCOMES.get(move["outcome"], ("failed", clean(move["outcome"]), "warn"))
    ended = terminal.paint(f"{terminal.sign(sign)} {words}{_back(move)}", colour)
    took = f", {move['seconds']:.1f} s" if move["steps"] else ""
    short = clean(move["gpu"]).removeprefix("0000:")
    return f"{terminal.paint(when, 'dim')}  {terminal.paint(short, 'bold')}  {_what(move):<{width}}  {ended}{took}"


def _more(terminal: Terminal, move: dict[str, Any], *, verbose: bool) -> None:
    message = translate(clean(move["message"]), move["operation"]).removeprefix(f"{move['gpu']} ({clean(move['name'])}) ")
    if message and message not in _TOLD_BY_OUTCOME:
        width = max(terminal.width - len(_INDENT), _NARROWEST) if terminal.live else len(message)
        for line in textwrap.wrap(message, width):
            terminal.line(f"{_INDENT}{line}")
    if not verbose:
        return
    asked = f"uid {move['uid']}" if move["why"] == "asked" else f"gpuhandoffd ({clean(move['why'])})"
    terminal.line(terminal.paint(f"{_INDENT}{clean(move['name'])}, asked by {asked}, job {move['job']}", "dim"))
    for step, phase, seconds in move["steps"]:
        sign, colour = _PHASES.get(phase, ("failed", "bad"))
        does, undoes = WORDS.get(step, (clean(step), f"undo {clean(step)}"))
        words = undoes if phase.startswith("und") else does
        terminal.line(f"{_INDENT}{terminal.paint(terminal.sign(sign), colour)} {words:<40} {seconds:7.2f} s")


def _what(move: dict[str, Any]) -> str:
    if move["operation"] == "handoff":
        return f"lend to {clean(move['vm'])}" if move["vm"] else "lend"
    why = _WHY.get(move["why"], "" if move["why"] == "asked" else clean(move["why"]))
    return f"take back ({why})" if why else "take back"


def _back(move: dict[str, Any]) -> str:
    return "; a reboot brought it back" if move["back"] == "reboot" and move["outcome"] != "interrupted" else ""


def _step_document(step: list[Any]) -> dict[str, Any]:
    name, phase, seconds = step
    return {"step": name, "phase": phase, "seconds": seconds}
