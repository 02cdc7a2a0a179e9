"""The write-ahead journal: one file a GPU, in a directory that a reboot empties, JSON lines, each flushed before the next.

    {"journal": 1, "boot": "…", "job": 7, "operation": "handoff", "gpu": "0000:01:00.0", "vm": "win11",
     "steps": [{"name": "claim-functions", "arguments": {…}}, …]}
    {"will": 0, "saved": {…}}     step 0 is about to be applied; `saved` is all that its undo needs
    {"did": 0}                    step 0 is in effect
    {"held": true}                every step is in effect: the GPU is away
    {"undoing": "why"}            from here on everything is undone, last step first
    {"undone": 0}                 step 0 is undone
    {"stuck": 0, "message": "…"}  step 0 could not be undone

The file is removed when nothing is left to undo. A daemon may die between any two bytes: a torn last line is what was
about to be written and did not happen; "will" without "did" means unknown, which undo copes with.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.plan import Json

FORMAT = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A step as journaled: planned, and captured if `saved` is there."""

    index: int
    name: str
    arguments: Json
    saved: Json | None = None
    did: bool = False
    undone: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What a journal says, read back."""

    boot_id: str
    job: int
    operation: str
    gpu: PciAddress
    vm: str = ""
    entries: tuple[Entry, ...] = ()
    held: bool = False
    undoing: str = ""
    stuck: str = ""

    @property
    def complete(self) -> bool:
        """Whether every step is in effect and nobody has begun to undo them."""
        return self.held and not self.undoing

    def to_undo(self) -> Iterator[Entry]:
        """Yield the steps that may be in effect, last first."""
        for entry in reversed(self.entries):
            if entry.saved is not None and not entry.undone:
                yield entry


class Journal:
    """One open journal file, appended to."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def append(self, **line: Any) -> None:
        """Append one line and flush it; raises OSError when it cannot be kept (then the step must not be taken)."""
        data = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise OSError(28, "the journal could not be written in full", str(self.path))
        os.fdatasync(self._descriptor)

    def end_torn_line(self) -> None:
        """Make sure that the next line starts a line of its own."""
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.write(self._descriptor, b"\n")

    def read(self) -> Record | None:
        """Return what the file says now."""
        return parse(self.path.read_text(errors="replace"))

    def close(self) -> None:
        """Leave the file where it is: the GPU stays away."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Forget it: nothing is left to undo."""
        self.path.unlink(missing_ok=True)
        self.close()


class JournalDirectory:
    """All journals, `/run/gpuhandoff/0000:01:00.0.journal`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, gpu: PciAddress, **header: Any) -> Journal:
        """Start a journal; raises OSError (FileExistsError when this GPU has one)."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = self._open(self._path(gpu), os.O_CREAT | os.O_EXCL)
        journal.append(journal=FORMAT, gpu=str(gpu), **header)
        return journal

    def open(self, gpu: PciAddress) -> Journal:
        """Open an existing journal for appending; a torn last line is ended first, so that it stays torn."""
        path = self._path(gpu)
        journal = self._open(path, 0)
        journal.end_torn_line()
        return journal

    def record(self, gpu: PciAddress) -> Record | None:
        """Return what this GPU's journal says, or None when it has none."""
        try:
            return parse(self._path(gpu).read_text(errors="replace"))
        except FileNotFoundError:
            return None

    def addresses(self) -> list[PciAddress]:
        """Return the GPUs that have a journal."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            stem, dot, suffix = name.rpartition(".")
            if dot and suffix == "journal":
                try:
                    found.append(PciAddress.parse(stem))
                except ValueError:
                    log.warning("%s is not named like a journal, ignoring it", name[:80])
        return found

    def discard(self, gpu: PciAddress) -> None:
        """Remove a journal that says nothing, or speaks of another boot."""
        self._path(gpu).unlink(missing_ok=True)

    def _path(self, gpu: PciAddress) -> Path:
        return self._directory / f"{gpu}.journal"

    @staticmethod
    def _open(path: Path, flags: int) -> Journal:
        return Journal(path, os.open(path, flags | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def parse(text: str) -> Record | None:
    """Read a journal's text. None when not even its first line is whole: then no step was begun.

    Lines that make no sense are skipped with a warning: what they said is unknown, and undo copes with unknown.
    """
    lines = list(_lines(text))
    if not lines or lines[0].get("journal") != FORMAT:
        return None
    header = lines[0]
    try:
        entries = [Entry(index, str(step["name"]), dict(step["arguments"])) for index, step in enumerate(header["steps"])]
        record = Record(
            boot_id=str(header["boot"]),
            job=int(header["job"]),
            operation=str(header["operation"]),
            gpu=PciAddress.parse(str(header["gpu"])),
            vm=str(header.get("vm", "")),
        )
    except (KeyError, TypeError, ValueError):
        log.warning("the journal's first line makes no sense: %.200s", text)
        return None
    state: dict[str, Any] = {"held": False, "undoing": "", "stuck": ""}
    for line in lines[1:]:
        _follow(line, entries, state)
    return replace(record, entries=tuple(entries), **state)


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


def _follow(line: dict[str, Any], entries: list[Entry], state: dict[str, Any]) -> None:
    match line:
        case {"will": int(index), "saved": dict(saved)} if 0 <= index < len(entries):
            entries[index] = replace(entries[index], saved=saved)
        case {"did": int(index)} if 0 <= index < len(entries):
            entries[index] = replace(entries[index], did=True)
        case {"undone": int(index)} if 0 <= index < len(entries):
            entries[index] = replace(entries[index], undone=True)
        case {"held": True}:
            state["held"] = True
        case {"undoing": str(why)}:
            state["undoing"] = why
            state["stuck"] = ""
        case {"stuck": int(), "message": str(message)}:
            state["stuck"] = message
        case _:
            log.warning("skipping a line of the journal that makes no sense: %.80r", line)
