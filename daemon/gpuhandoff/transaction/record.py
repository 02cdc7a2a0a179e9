"""What a journal says, read back: a pure function of its text."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import Process

FORMAT = 2
MOST_STEPS = 1000
"""A journal that speaks of more is damaged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A step that was begun."""

    index: int
    name: str
    arguments: Json
    saved: Json
    did: bool = False
    undone: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A whole journal. A header that is damaged leaves its fields empty: what was begun is known all the same."""

    gpu: PciAddress
    boot_id: str = ""
    job: int = 0
    operation: str = ""
    vm: str = ""
    steps: int = 0
    nodes: tuple[str, ...] = ()
    """Device nodes through which a process can have the card."""
    lease: str = ""
    """The unique bus name of the caller for whose stay the GPU is lent."""
    guest_timeout: int = 0
    """Seconds within which a VMM has to open the GPU; 0 for ever."""
    entries: tuple[Entry, ...] = ()
    held: bool = False
    held_at: float = 0.0
    """Seconds of the monotonic clock; since then a VMM is waited for."""
    guest: Process | None = None
    """The VMM that was last seen with the GPU."""
    undoing: str = ""
    stuck: str = ""
    waits: bool = False
    """Whether what it is stuck for may end by itself, perhaps before anybody looks again."""
    closing: bool = False
    """Whether whoever has the card open may be what it is stuck for."""
    gone: bool = False
    """Whether nothing but the card's absence from the bus is what it is stuck for."""

    @property
    def complete(self) -> bool:
        """Whether every step is in effect and nobody has begun to undo them."""
        return self.held and not self.undoing

    def to_undo(self) -> Iterator[Entry]:
        """Yield the steps that may be in effect, last first."""
        for entry in reversed(self.entries):
            if not entry.undone:
                yield entry


@dataclass(slots=True)
class _Draft:
    entries: dict[int, Entry] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=8)
def parse(text: str, gpu: PciAddress) -> Record | None:
    """Read the text of a GPU's journal; None when it says nothing that could be understood.

    Lines that make no sense are skipped with a warning: what they said is unknown, and undo copes with unknown.
    Remembered for a while, as every change of a GPU has its journal read.
    """
    draft = _Draft()
    understood = False
    for line in _lines(text):
        understood = _follow(line, draft) or understood
    if not understood:
        return None
    entries = tuple(draft.entries[index] for index in sorted(draft.entries))
    record = replace(Record(gpu), **draft.fields)
    return replace(record, entries=entries, steps=max(record.steps, len(entries)))


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.split("\n"):
        if not line:
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            log.warning("skipping a torn line of the journal: %.80r", line)
            continue
        if isinstance(value, dict):
            yield value


def _follow(line: dict[str, Any], draft: _Draft) -> bool:
    """Take one line in; False when it makes no sense."""
    match line:
        case {"journal": int(), "boot": str(boot), "job": int(job), "operation": str(operation)}:
            draft.fields |= {"boot_id": boot, "job": job, "operation": operation, **_details(line)}
        case {"will": int(index), "step": str(name), "arguments": dict(arguments), "saved": dict(saved)} if _sane(index):
            draft.entries[index] = Entry(index, name, arguments, saved)
        case {"did": int(index)} if index in draft.entries:
            draft.entries[index] = replace(draft.entries[index], did=True)
        case {"undone": int(index)} if index in draft.entries:
            draft.entries[index] = replace(draft.entries[index], undone=True)
        case {"held": True}:
            at = line.get("at")
            draft.fields |= {"held": True, "held_at": float(at) if isinstance(at, int | float) else 0.0}
        case {"guest": {"pid": int(pid), "start_time": int(start), "name": str(name), "uid": int(uid)}}:
            draft.fields["guest"] = Process(pid, start, name, uid)
        case {"expected": True}:
            at = line.get("at")
            draft.fields |= {"guest": None} | ({"held_at": float(at)} if isinstance(at, int | float) else {})
        case {"undoing": str(why)}:
            draft.fields |= {"undoing": why, "stuck": "", "waits": False, "closing": False, "gone": False}
        case {"stuck": int(), "message": str(message)}:
            draft.fields |= {"stuck": message} | {name: line.get(name) is True for name in ("waits", "closing", "gone")}
        case _:
            log.warning("skipping a line of the journal that makes no sense: %.80r", line)
            return False
    return True


def _details(line: dict[str, Any]) -> dict[str, Any]:
    """Return those of a header's further fields that make sense."""
    found: dict[str, Any] = {}
    for name in ("vm", "lease"):
        if isinstance(value := line.get(name), str):
            found[name] = value
    for name in ("steps", "guest_timeout"):
        if isinstance(value := line.get(name), int) and value >= 0:
            found[name] = value
    if isinstance(nodes := line.get("nodes"), list):
        found["nodes"] = tuple(node for node in nodes if isinstance(node, str) and node.startswith("/dev/"))
    return found


def _sane(index: int) -> bool:
    return 0 <= index < MOST_STEPS
