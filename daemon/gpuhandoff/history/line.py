"""A move as a line of history.jsonl.

    {"history": 1, "boot": "3f0c…", "job": 7, "began": 1764000000000000, "gpu": "0000:01:00.0", "name": "NVIDIA …",
     "operation": "handoff", "why": "asked", "vm": "win11", "uid": 1000}

says that a move begins; the same with "outcome", "seconds", "message" and "steps", [["claim-functions", "done", 0.012], …],
says how it ended. "card" and "kernel" say what was moved on which kernel, "guests" how many virtual machines then had it,
"lost" that it did not come back. Keys that are not known are those of a later version, and ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from gpuhandoff.history.move import Move, Taken
from gpuhandoff.model.address import PciAddress

FORMAT = 1
LONGEST = 8192
"""Bytes of a line. One that is longer is not ours."""

_ID, _NAME, _MESSAGE = 48, 200, 1000
"""Characters."""
_STEPS = 64
_UID = (1 << 32) - 1
_TIME = (1 << 63) - 1
_SECONDS = 1e9
_PHASES = {"apply", "done", "undo", "undone"}


def write(move: Move) -> bytes:
    """Return the line of a move, with its newline. What would make it too long is left out."""
    line: dict[str, Any] = {
        "history": FORMAT,
        "boot": _clean(move.boot_id, _ID),
        "job": move.job,
        "began": move.began,
        "gpu": str(move.gpu),
        "name": _clean(move.name, _NAME),
        "operation": _clean(move.operation, _ID),
        "why": _clean(move.why, _ID),
        "vm": _clean(move.vm, _NAME),
        "uid": move.uid,
        "card": _clean(move.card, _ID),
        "kernel": _clean(move.kernel, _NAME),
    }
    if move.guests:
        line["guests"] = move.guests
    if move.lost:
        line["lost"] = True
    if move.outcome:
        line |= {
            "outcome": _clean(move.outcome, _ID),
            "seconds": round(move.seconds, 3),
            "message": _clean(move.message, _MESSAGE),
            "steps": [[_clean(one.step, _ID), one.phase, round(one.seconds, 3)] for one in move.steps[-_STEPS:]],
        }
    data = _dump(line)
    if len(data) > LONGEST:
        data = _dump(line | {"steps": []})
    return data


def read(data: bytes) -> Move | None:
    """Return what a line says; None when it says nothing that makes sense."""
    if len(data) > LONGEST:
        return None
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or line.get("history") != FORMAT:
        return None
    try:
        return _move(line)
    except (KeyError, TypeError, ValueError):
        return None


def _move(line: Mapping[str, Any]) -> Move:
    ended = "outcome" in line
    steps = line["steps"] if ended else []
    if not isinstance(steps, list):
        raise TypeError("steps are a list")
    return Move(
        boot_id=_text(line["boot"], _ID),
        job=_number(line["job"], _UID),
        began=_number(line["began"], _TIME),
        gpu=PciAddress.parse(_text(line["gpu"], _ID)),
        name=_text(line["name"], _NAME),
        operation=_text(line["operation"], _ID),
        why=_text(line["why"], _ID),
        vm=_text(line["vm"], _NAME),
        uid=_number(line["uid"], _UID),
        outcome=_text(line["outcome"], _ID) if ended else "",
        seconds=_seconds(line["seconds"]) if ended else 0.0,
        steps=tuple(_taken(one) for one in steps[-_STEPS:]),
        message=_text(line["message"], _MESSAGE) if ended else "",
        card=_text(line.get("card", ""), _ID),
        kernel=_text(line.get("kernel", ""), _NAME),
        guests=_number(line.get("guests", 0), _UID),
        lost=line.get("lost", False) is True,
    )


def _taken(value: Any) -> Taken:
    match value:
        case [str(step), str(phase), int() | float() as seconds] if phase in _PHASES:
            return Taken(_clean(step, _ID), phase, _seconds(seconds))
    raise ValueError("a step is expected")


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return _clean(value, longest)


def _number(value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError("a number is expected")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _SECONDS or math.isnan(value):
        raise ValueError("seconds are expected")
    return float(value)


def _clean(text: str, longest: int) -> str:
    """Return the beginning of a text, without what neither the bus nor a terminal can carry."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:longest])


def _dump(line: Mapping[str, Any]) -> bytes:
    return (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
