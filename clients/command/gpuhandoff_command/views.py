"""What status, plan and holders look like."""

from __future__ import annotations

from typing import Any

from gpuhandoff_command.terminal import Terminal, clean

_STATES = {
    "host": ("with the host", "good"),
    "handing-off": ("going to the guest", "warn"),
    "detached": ("ready for a guest", "bold"),
    "guest": ("with a guest", "bold"),
    "reclaiming": ("coming back", "warn"),
    "foreign": ("elsewhere", "warn"),
    "stuck": ("STUCK", "bad"),
}


def show_status(terminal: Terminal, status: dict[str, Any]) -> None:
    """Show every GPU."""
    gpus = {key: value for key, value in status.items() if isinstance(value, dict)}
    terminal.value({"gpus": list(gpus.values()), "version": status.get("version"), "kernel": status.get("kernel")})
    if not gpus:
        terminal.line("This machine has no GPU.")
    for place, (address, gpu) in enumerate(sorted(gpus.items())):
        if place:
            terminal.line()
        words, colour = _STATES.get(gpu["state"], (clean(gpu["state"]), "warn"))
        terminal.line(f"{terminal.paint(address, 'bold')}  {clean(gpu['name'])}")
        terminal.line(f"  where      {terminal.paint(words, colour)}{_with(gpu)}")
        if gpu["reason"]:
            terminal.line(f"  why        {clean(gpu['reason'])}")
        terminal.line(f"  driver     {clean(gpu['driver']) or 'none'}")
        terminal.line(f"  functions  {', '.join(one.rpartition(':')[2] for one in gpu['functions'])}{_group(gpu)}")
        if gpu["connectors"]:
            terminal.line(f"  screens    {', '.join(clean(one) for one in gpu['connectors'])}")
        if gpu["step"]:
            terminal.line(f"  step       {clean(gpu['step'])}")
        if gpu["state"] == "host":
            needs = "the desktop ends (--stop-display)" if gpu["drives-display"] else "nothing ends"
            terminal.line(f"  to lend    {needs}; `gpuhandoff plan {address.removeprefix('0000:')}` shows every step")


def show_plan(terminal: Terminal, steps: list[list[Any]]) -> None:
    """Show what would be done and what it costs."""
    terminal.value({"steps": [{"step": name, "does": does, **details} for name, does, details in steps]})
    costs = []
    for index, (name, does, details) in enumerate(steps, 1):
        terminal.line(f"{index:2}  {clean(does)}  {terminal.paint(f'({clean(name)})', 'dim')}")
        if details.get("costs"):
            costs.append(clean(details["costs"]))
    terminal.line()
    if costs:
        terminal.line("What it costs you while the GPU is away:")
        for cost in costs:
            terminal.line(f"  - {cost}")
    else:
        terminal.line("It costs you nothing else.")
    terminal.line("Every step is undone by `gpuhandoff reclaim`, and by a reboot.")


def show_holders(terminal: Terminal, holders: list[dict[str, Any]]) -> None:
    """Show who has a GPU open."""
    terminal.value({"holders": holders})
    if not holders:
        terminal.line("Nobody has it open.")
    for holder in holders:
        where = clean(holder["unit"]) + (f", session {clean(holder['session'])}" if holder["session"] else "")
        terminal.line(f"{clean(holder['name'])} (pid {holder['pid']}, uid {holder['uid']}) {terminal.paint(where, 'dim')}")
        terminal.line(f"  {' '.join(clean(node) for node in holder['nodes'])}")


def _with(gpu: dict[str, Any]) -> str:
    whom = [f'"{clean(gpu["vm"])}"'] if gpu["vm"] else []
    if gpu["owner"]:
        whom.append(clean(gpu["owner"]))
    return f": {', '.join(whom)}" if whom else ""


def _group(gpu: dict[str, Any]) -> str:
    return f" (IOMMU group {gpu['iommu-group']})" if gpu["iommu-group"] >= 0 else " (no IOMMU group)"
