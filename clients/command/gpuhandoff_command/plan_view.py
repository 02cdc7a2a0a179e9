"""What a plan looks like: first what it takes from the person, then the steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpuhandoff import names
from gpuhandoff_command.progress import WORDS
from gpuhandoff_command.sentences import translate
from gpuhandoff_command.terminal import Terminal, clean

_ASKS = {
    names.ACTION_HANDOFF: "lending a GPU",
    names.ACTION_HANDOFF_DISPLAY: "ending sessions",
    names.ACTION_HANDOFF_OTHERS: "ending somebody else's session",
    names.ACTION_ACCEPT_RISK: "accepting a risk",
    names.ACTION_TERMINATE_HOLDERS: "ending programs",
    names.ACTION_RECLAIM: "taking a GPU back",
    names.ACTION_EVICT_GUEST: "ending a virtual machine",
    names.ACTION_INSPECT: "looking only",
}
_CONSENTS = {"stop-display": "stop-display", "holders": "holders=terminate", "accept-risk": "accept-risk"}
_NO_SOURCE = "none found"
_WIDTH = 11
NEVER = "not known, it was never done here"


def show_plan(terminal: Terminal, plan: dict[str, Any], *, verbose: bool = False) -> None:
    """Show what would be done, what it costs and how it is undone."""
    terminal.value(plan)
    steps: list[dict[str, Any]] = plan["steps"]
    if not steps:
        terminal.line("Nothing would have to be done.")
        return
    rows = list(_rows(plan))
    for label, text in rows:
        terminal.line(f"{terminal.paint(f'{label:<{_WIDTH}}', 'bold')} {text}")
    if rows:
        terminal.line()
    for index, one in enumerate(steps, 1):
        _show_step(terminal, index, one, verbose=verbose)
    terminal.line()
    if plan["direction"] == "reclaim":
        terminal.line("This only plans; `gpuhandoff reclaim` does it.")
        return
    costs = [clean(one["costs"]) for one in steps if one.get("costs")]
    terminal.line("What it costs you while the GPU is away:" if costs else "It costs you nothing.")
    for cost in costs:
        terminal.line(f"  - {cost}")
    terminal.line("Nothing was changed. Every step is undone by `gpuhandoff reclaim`, and by a reboot.")


def seconds_words(seconds: float) -> str:
    """Return a duration that was measured."""
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"  # noqa: PLR2004  (rounds to 10)


def _rows(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if plan.get("desktop") and plan["direction"] == "handoff":
        yield ("desktop", clean(plan["desktop"]))
    if plan.get("programs"):
        more = f" and {plan['more-programs']} more" if plan.get("more-programs") else ""
        yield ("ends", ", ".join(clean(one) for one in plan["programs"]) + more)
    if plan.get("ended"):
        yield ("" if plan.get("programs") else "ends", "; ".join(clean(one) for one in plan["ended"]))
    for index, text in enumerate(plan.get("lost", ())):
        yield ("lost" if not index else "", clean(text))
    if plan["direction"] == "handoff" and plan.get("reset-verdict"):
        yield ("returns", verdict_words(plan))
    if plan.get("asks"):
        yield ("asks for", ", ".join(_asked(one) for one in plan["asks"]))
    if plan.get("unneeded"):
        spare = [translate(f"option {_CONSENTS.get(one, clean(one))}", plan["direction"]) for one in plan["unneeded"]]
        flags = [flag.removeprefix("option ") for flag in spare]
        yield ("", f"{_listed(flags)} {'are' if len(flags) > 1 else 'is'} not needed here, but asked for as well when given")
    if "seconds" in plan:
        yield ("takes", f"usually {seconds_words(plan['seconds'])} here" if plan["seconds"] >= 0 else NEVER)


def verdict_words(told: dict[str, Any]) -> str:
    """Return a reset verdict in words; `told`: the keys that Status and Preview have of it."""
    kind, reason = clean(told["reset-verdict"]), clean(told["reset-reason"])
    source = clean(told["reset-source"])
    text = f"{kind}. {reason}" + (f" ({source})" if source not in {"", _NO_SOURCE} else "")
    if not told.get("needed", True) and kind != "safe":
        text += " It matters only if you take it back: the desktop does not need it."
    if told.get("reset-risk"):
        text += translate(" The next guest takes the option accept-risk.")
    return text


def _listed(things: list[str]) -> str:
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)


def _asked(action: str) -> str:
    return f"{_ASKS[action]} ({action})" if action in _ASKS else clean(action)


def _show_step(terminal: Terminal, index: int, one: dict[str, Any], *, verbose: bool) -> None:
    name = one["step"]
    undoing = one["does"] == "undo it" and name in WORDS
    words = WORDS[name][1] if undoing else clean(one["does"])
    terminal.line(f"{index:2}  {words}  {terminal.paint(f'({clean(name)})', 'dim')}")
    if verbose:
        seconds = one.get("seconds", -1.0)
        details = [f"back: {clean(one['undo'])}"] if one.get("undo") else []
        details.append(f"usually {seconds_words(seconds)}" if seconds >= 0 else NEVER)
        terminal.line(f"    {terminal.paint('; '.join(details), 'dim')}")
