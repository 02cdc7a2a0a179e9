"""What status and holders look like."""

from __future__ import annotations

from typing import Any

from gpuhandoff_command.exits import CallError
from gpuhandoff_command.plan_view import verdict_words
from gpuhandoff_command.progress import WORDS
from gpuhandoff_command.sentences import translate
from gpuhandoff_command.terminal import Terminal, clean

_STATES = {
    "host": ("with the host", "good"),
    "handing-off": ("on its way to the guest", "warn"),
    "detached": ("lent, ready for a guest", "bold"),
    "guest": ("with a guest", "bold"),
    "reclaiming": ("on its way back", "warn"),
    "foreign": ("moved by somebody else", "warn"),
    "stuck": ("STUCK", "bad"),
}
Outlook = list[Any] | CallError
"""What a handoff would meet: the steps of its plan, or the refusal."""


def state_words(state: str, driver: str | None = None) -> tuple[str, str]:
    """Return a state in words, and its colour; `driver`: what it is bound to, "" for nothing, None for unknown."""
    if state == "foreign" and driver == "":
        return "without a driver", "warn"
    return _STATES.get(state, (clean(state), "warn"))


def show_status(terminal: Terminal, status: dict[str, Any], outlooks: dict[str, Outlook]) -> None:
    """Show every GPU; `outlooks` for those that could be lent."""
    gpus = {key: value for key, value in sorted(status.items()) if isinstance(value, dict)}
    documents = [
        {**gpu, "handoff": _outlook_document(outlooks[key])} if key in outlooks else gpu for key, gpu in gpus.items()
    ]
    about = {key: status.get(key) for key in ("version", "kernel", "layout", "layout-reason")}
    terminal.value({"gpus": documents, **about})
    if not gpus:
        terminal.line("This machine has no GPU.")
    elif status.get("layout"):
        terminal.line(f"{clean(status['layout'])}: {clean(status['layout-reason'])}")
        terminal.line()
    for place, (address, gpu) in enumerate(gpus.items()):
        if place:
            terminal.line()
        terminal.line(f"{terminal.paint(address, 'bold')}  {clean(gpu['name'])}")
        for label, text in _rows(terminal, address, gpu, outlooks.get(address)):
            terminal.line(f"  {label:<10} {text}")


def show_holders(terminal: Terminal, holders: list[dict[str, Any]]) -> None:
    """Show who has a GPU open."""
    terminal.value({"holders": holders})
    if not holders:
        terminal.line("Nobody has it open.")
    for holder in holders:
        leaves = ", lets go by itself" if holder["leaves"] else ""
        terminal.line(f"{clean(holder['who'])}{leaves}")
        where = [f"{clean(holder['name'])} (pid {holder['pid']}, uid {holder['uid']})", clean(holder["unit"])]
        ways = [clean(way) for way in holder["ways"] if way != "open"]
        terminal.line(f"  {terminal.paint(', '.join(one for one in (*where, *ways) if one), 'dim')}")
        terminal.line(f"  {' '.join(clean(node) for node in holder['nodes'])}")


def _rows(terminal: Terminal, address: str, gpu: dict[str, Any], outlook: Outlook | None) -> list[tuple[str, str]]:
    words, colour = state_words(gpu["state"], gpu["driver"])
    rows = [("state", terminal.paint(words, colour) + _with(gpu))]
    if gpu["reason"]:
        rows.append(("why", clean(gpu["reason"])))
    if gpu["step"]:
        rows.append(("step", WORDS.get(gpu["step"], (clean(gpu["step"]),))[0]))
    rows.append(("driver", (clean(gpu["driver"]) or "none") + (", asleep" if gpu.get("asleep") else "")))
    if gpu["vm"]:
        rows.append(("lent to", clean(gpu["vm"])))
    rows.append(("functions", f"{', '.join(clean(one).rpartition(':')[2] for one in gpu['functions'])}{_group(gpu)}"))
    if gpu["connectors"]:
        rows.append(("screens", ", ".join(clean(one) for one in gpu["connectors"])))
    if gpu.get("desktop") and gpu["state"] == "host":
        rows.append(("desktop", clean(gpu["desktop"])))
    if gpu.get("reset-verdict"):
        rows.append(("returns", verdict_words(gpu)))
    return [*rows, *_next(address, gpu, outlook)]


def _next(address: str, gpu: dict[str, Any], outlook: Outlook | None) -> list[tuple[str, str]]:
    """Return what can be done with it now."""
    short = address.removeprefix("0000:")
    if outlook is not None:
        return [("to lend", _outlook_words(outlook, address, clean(gpu["name"])))]
    words = {
        "detached": f"start the virtual machine, or `gpuhandoff reclaim {short}`",
        "guest": "shut the virtual machine down: then the GPU comes back by itself",
        "handing-off": f"`gpuhandoff cancel {short}` stops and undoes it",
    }
    return [("next", words[gpu["state"]])] if gpu["state"] in words else []


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
