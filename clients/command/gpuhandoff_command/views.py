"""What status, plan and holders look like."""

from __future__ import annotations

from typing import Any

from gpuhandoff_command.exits import CallError
from gpuhandoff_command.progress import WORDS
from gpuhandoff_command.sentences import translate
from gpuhandoff_command.terminal import Terminal, clean

_STATES = {
    "host": ("with the host", "good"),
    "handing-off": ("on its way to the guest", "warn"),
    "detached": ("lent, ready for a guest", "bold"),
    "guest": ("with a guest", "bold"),
    "reclaiming": ("on its way back", "warn"),
    "foreign": ("without its driver", "warn"),
    "stuck": ("STUCK", "bad"),
}
Outlook = list[Any] | CallError
"""What a handoff would meet: the steps of its plan, or the refusal."""


def state_words(state: str) -> tuple[str, str]:
    """Return a state in words, and its colour."""
    return _STATES.get(state, (clean(state), "warn"))


def show_status(terminal: Terminal, status: dict[str, Any], outlooks: dict[str, Outlook]) -> None:
    """Show every GPU; `outlooks` for those that could be lent."""
    gpus = {key: value for key, value in sorted(status.items()) if isinstance(value, dict)}
    documents = [
        {**gpu, "handoff": _outlook_document(outlooks[key])} if key in outlooks else gpu for key, gpu in gpus.items()
    ]
    terminal.value({"gpus": documents, "version": status.get("version"), "kernel": status.get("kernel")})
    if not gpus:
        terminal.line("This machine has no GPU.")
    for place, (address, gpu) in enumerate(gpus.items()):
        if place:
            terminal.line()
        terminal.line(f"{terminal.paint(address, 'bold')}  {clean(gpu['name'])}")
        for label, text in _rows(terminal, address, gpu, outlooks.get(address)):
            terminal.line(f"  {label:<10} {text}")


def show_plan(terminal: Terminal, steps: list[list[Any]], direction: str) -> None:
    """Show what would be done and what it costs."""
    terminal.value({"direction": direction, "steps": [{"step": name, "does": does, **more} for name, does, more in steps]})
    if not steps:
        terminal.line("Nothing would have to be done.")
        return
    for index, (name, does, _) in enumerate(steps, 1):
        words = WORDS[name][1] if does == "undo it" and name in WORDS else clean(does)
        terminal.line(f"{index:2}  {words}  {terminal.paint(f'({clean(name)})', 'dim')}")
    terminal.line()
    if direction == "reclaim":
        terminal.line("This only plans; `gpuhandoff reclaim` does it.")
        return
    costs = _costs(steps)
    terminal.line("What it costs you while the GPU is away:" if costs else "It costs you nothing.")
    for cost in costs:
        terminal.line(f"  - {cost}")
    terminal.line("Nothing was changed. Every step is undone by `gpuhandoff reclaim`, and by a reboot.")


def show_holders(terminal: Terminal, holders: list[dict[str, Any]]) -> None:
    """Show who has a GPU open."""
    terminal.value({"holders": holders})
    if not holders:
        terminal.line("Nobody has it open.")
    for holder in holders:
        where = clean(holder["unit"]) + (f", session {clean(holder['session'])}" if holder["session"] else "")
        who = f"{clean(holder['name'])} (pid {holder['pid']}, uid {holder['uid']})"
        terminal.line(f"{who}  {terminal.paint(where, 'dim')}".rstrip())
        terminal.line(f"  {' '.join(clean(node) for node in holder['nodes'])}")


def _rows(terminal: Terminal, address: str, gpu: dict[str, Any], outlook: Outlook | None) -> list[tuple[str, str]]:
    short = address.removeprefix("0000:")
    words, colour = state_words(gpu["state"])
    rows = [("state", terminal.paint(words, colour) + _with(gpu))]
    if gpu["reason"]:
        rows.append(("why", clean(gpu["reason"])))
    if gpu["step"]:
        rows.append(("step", WORDS.get(gpu["step"], (clean(gpu["step"]),))[0]))
    rows.append(("driver", clean(gpu["driver"]) or "none"))
    if gpu["vm"]:
        rows.append(("lent to", clean(gpu["vm"])))
    rows.append(("functions", f"{', '.join(clean(one).rpartition(':')[2] for one in gpu['functions'])}{_group(gpu)}"))
    if gpu["connectors"]:
        rows.append(("screens", ", ".join(clean(one) for one in gpu["connectors"])))
    if outlook is not None:
        rows.append(("to lend", _outlook_words(outlook, address, clean(gpu["name"]))))
    elif gpu["state"] == "detached":
        rows.append(("next", f"start the virtual machine, or `gpuhandoff reclaim {short}`"))
    elif gpu["state"] == "guest":
        rows.append(("next", f"shut the virtual machine down, then `gpuhandoff reclaim {short}`"))
    elif gpu["state"] == "handing-off":
        rows.append(("next", f"`gpuhandoff cancel {short}` stops and undoes it"))
    return rows


def _outlook_words(outlook: Outlook, address: str, name: str) -> str:
    if isinstance(outlook, CallError):
        text = translate(clean(outlook.message), "handoff")
        return text.removeprefix(f"{address} ({name}) ").removeprefix(f"{address} ")
    costs = [cost for cost in _costs(outlook) if "suspend" not in cost]
    return f"it costs {'; '.join(costs)}" if costs else "nothing stands in the way, nothing ends"


def _outlook_document(outlook: Outlook) -> dict[str, Any]:
    if isinstance(outlook, CallError):
        return {"possible": False, "error": outlook.name, "message": outlook.message, "costs": []}
    return {"possible": True, "error": "", "message": "", "costs": _costs(outlook)}


def _costs(steps: list[Any]) -> list[str]:
    return [clean(more["costs"]) for _, _, more in steps if more.get("costs")]


def _with(gpu: dict[str, Any]) -> str:
    return f": {clean(gpu['owner'])}" if gpu["owner"] else ""


def _group(gpu: dict[str, Any]) -> str:
    return f" (IOMMU group {gpu['iommu-group']})" if gpu["iommu-group"] >= 0 else " (no IOMMU group)"
