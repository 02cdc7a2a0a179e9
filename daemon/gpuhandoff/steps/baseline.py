"""What steps that change what the whole host shares owe to one another when more than one GPU is away.

What such a step captures while another GPU is away is partly that one's doing, and not what the host has to come back to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuhandoff.model.plan import Json

EXCLUSIVE = frozenset({"confine-host", "load-vfio"})
"""One setting for the whole host: while another GPU is away that has it, its setting is what has to hold."""


def without(step: str, captured: Json, others: Sequence[Json]) -> Json:
    """Return what a step captured without what it did for other GPUs; `others`: what is saved for those."""
    correct = _CORRECTIONS.get(step)
    return correct(captured, others) if correct is not None and others else captured


def upon(step: str, saved: Json, others: Sequence[Json]) -> Json:
    """Return what an undo has to come back to while other GPUs are away.

    Pages that were added for them stay. Services that were stopped for them as well stay stopped, and are started with the
    last of these GPUs: one may need the driver of another.
    """
    if step == "back-guest-memory" and "pages" in saved:
        return {**saved, "pages": int(saved["pages"]) + _added(saved, others)}
    if step == "stop-gpu-services":
        return {**saved, "running": [name for name in saved["running"] if name not in _stopped(others)]}
    return saved


def _modules(captured: Json, others: Sequence[Json]) -> Json:
    """Modules of VFIO that were loaded for another GPU are not the host's own."""
    return {**captured, "modules": [name for name in captured["modules"] if all(name in one["modules"] for one in others)]}


def _memory(captured: Json, others: Sequence[Json]) -> Json:
    """Pages that were added for other guests go with them; switches were as the first of them found them."""
    if "switches" in captured:
        found = [one["switches"] for one in others if "switches" in one]
        return {"switches": {**captured["switches"], **found[0]}} if found else captured
    return {**captured, "pages": max(0, int(captured["pages"]) - _added(captured, others))}


def _added(saved: Json, others: Sequence[Json]) -> int:
    return sum(int(one["added"]) for one in others if one.get("size_kib") == saved["size_kib"])


def _services(captured: Json, others: Sequence[Json]) -> Json:
    """Services that do not run because they were stopped for other GPUs are to run again when all are back."""
    waiting = [name for name in captured["idle"] if name in _stopped(others)]
    return {**captured, "running": [*captured["running"], *waiting]}


def _stopped(others: Sequence[Json]) -> set[str]:
    return {str(name) for one in others for name in one.get("running", ())}


def _processors(captured: Json, others: Sequence[Json]) -> Json:
    """CPUs, interrupts, queues and governors were as the first of them found them."""
    first = others[0]
    merged: dict[str, Any] = {name: {**captured[name], **first[name]} for name in ("units", "interrupts", "governors")}
    queues = captured["workqueues"] if first["workqueues"] is None else first["workqueues"]
    return {**captured, **merged, "workqueues": queues}


_CORRECTIONS: Mapping[str, Callable[[Json, Sequence[Json]], Json]] = {
    "load-vfio": _modules,
    "back-guest-memory": _memory,
    "confine-host": _processors,
    "stop-gpu-services": _services,
}
