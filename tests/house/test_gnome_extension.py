"""The GNOME extension keeps up with the daemon: it has a translation of whatever the daemon says that has one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gpuhandoff.model.verdict import Kind, Verdict
from gpuhandoff.plan.preview import LOST
from gpuhandoff.plan.risk import risk_of
from gpuhandoff.transaction import state

ROOT = Path(__file__).parents[2]
DAEMON = ROOT / "daemon/gpuhandoff"
KNOWN = ROOT / "clients/gnome-shell/logic/daemonTexts.js"


def constants(room: str, made: str, position: int) -> Iterator[str]:
    """Give the texts without parameters with which a room makes values of a class, by the argument's place."""
    calls = (node for path in (DAEMON / room).glob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    for call in calls:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == made:
            for argument in call.args[position : position + 1]:
                yield from _texts(argument)


def _texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.IfExp():
            yield from _texts(node.body)
            yield from _texts(node.orelse)
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.Name() if node.id.isupper():
            yield str(getattr(state, node.id))


def test_every_text_of_the_daemon_that_is_shown_can_be_translated() -> None:
    """What is lost with a desktop, what a step costs, and why a card is where it is; nothing else is shown as it comes."""
    risks = {risk_of(Verdict(kind, "", "", needed=True)) for kind in Kind} - {""}
    costs = set(constants("plan", "PlannedStep", 3))
    reasons = set(constants("transaction", "Standing", 1))
    assert min(map(len, (risks, costs, reasons))) > 2
    known = re.findall(r"N_\('((?:[^'\\]|\\.)*)'\)", KNOWN.read_text())
    assert set(known) == {*LOST, *risks, *costs, *reasons}
