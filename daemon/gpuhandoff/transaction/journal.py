"""The write-ahead journal: one file a GPU, in a directory that a reboot empties, JSON lines, each flushed before the next.

    {"journal": 2, "gpu": "0000:01:00.0", "boot": "…", "job": 7, "operation": "handoff", "vm": "win11", "steps": 8,
     "nodes": ["/dev/dri/card0", …], "lease": ":1.42", "guest_timeout": 60}
    {"will": 0, "step": "claim-functions", "arguments": {…}, "saved": {…}}
                                    step 0 is about to be applied; this is all that its undo needs
    {"did": 0}                      step 0 is in effect
    {"held": true, "at": 1234.5}    every step is in effect: the GPU is away, since that second of the monotonic clock
    {"guest": {"pid": …}}           a VMM has opened it
    {"expected": true, "at": 1234.5}  the next one is about to start on it
    {"undoing": "why"}              from here on everything is undone, last step first
    {"undone": 0}                   step 0 is undone
    {"stuck": 0, "message": "…"}    step 0 could not be undone

The file is removed when nothing is left to undo. A daemon may die between any two bytes: a torn last line is what was
about to be written and did not happen; "will" without "did" means unknown, which undo copes with. Each "will" says all of
itself, so that a damaged line takes nothing with it but itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

from gpuhandoff.model.address import PciAddress
from gpuhandoff.transaction.record import FORMAT, Record, parse

LARGEST = 4 << 20
"""Bytes that are read of one file."""
ASIDE = ".unreadable"

log = logging.getLogger(__name__)


class Journal:
    """One open journal file, appended to."""

    def __init__(self, path: Path, gpu: PciAddress, descriptor: int) -> None:
        self.path = path
        self.gpu = gpu
        self._descriptor = descriptor
        self._torn = False

    def append(self, **line: Any) -> None:
        """Append one line and flush it; raises OSError when it cannot be kept (then the step must not be taken)."""
        data = ("\n" * self._torn + json.dumps(line, separators=(",", ":")) + "\n").encode()
        written = os.write(self._descriptor, data)
        self._torn = written != len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, "the journal could not be written in full", str(self.path))
        os.fdatasync(self._descriptor)

    def read(self) -> Record | None:
        """Return what the file says now; raises OSError."""
        return parse(_text(self.path), self.gpu)

    def close(self) -> None:
        """Leave the file where it is: the GPU stays away."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Forget it: nothing is left to undo. Raises OSError when it cannot be removed."""
        self.close()
        self.path.unlink(missing_ok=True)

    def end_torn_line(self) -> None:
        """Make sure that the next line starts a line of its own."""
        text = _text(self.path)
        self._torn = bool(text) and not text.endswith("\n")


class JournalDirectory:
    """All journals, `/run/gpuhandoff/0000:01:00.0.journal`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, gpu: PciAddress, **header: Any) -> Journal:
        """Start a journal; raises OSError (FileExistsError when this GPU has one) and then leaves no new file."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = self._open(gpu, os.O_CREAT | os.O_EXCL)
        try:
            journal.append(journal=FORMAT, gpu=str(gpu), **header)
        except OSError:
            with contextlib.suppress(OSError):
                journal.remove()
            raise
        return journal

    def open(self, gpu: PciAddress) -> Journal:
        """Open an existing journal for appending; a torn last line is ended first, so that it stays torn."""
        journal = self._open(gpu, 0)
        try:
            journal.end_torn_line()
        except OSError:
            journal.close()
            raise
        return journal

    def note(self, gpu: PciAddress, **line: Any) -> None:
        """Append one line that only helps: a journal that cannot take it is no reason for anything."""
        try:
            journal = self.open(gpu)
            try:
                journal.append(**line)
            finally:
                journal.close()
        except OSError as error:
            log.warning("the journal of %s cannot be written: %s", gpu, error.strerror)

    def record(self, gpu: PciAddress) -> Record | None:
        """Return what this GPU's journal says, or None when it has none, or none that says anything."""
        try:
            return parse(_text(self._path(gpu)), gpu)
        except OSError:
            return None

    def addresses(self) -> list[PciAddress]:
        """Return the GPUs that have a journal."""
        found = []
        for name in self._names():
            stem, dot, suffix = name.rpartition(".")
            if dot and suffix == "journal":
                try:
                    found.append(PciAddress.parse(stem))
                except ValueError:
                    log.warning("%s is not named like a journal, ignoring it", name[:80])
        return found

    def is_blank(self, gpu: PciAddress) -> bool:
        """Tell whether a journal holds no whole line: its header was torn, so no step was begun. Raises OSError."""
        return "\n" not in _text(self._path(gpu))

    def discard(self, gpu: PciAddress) -> None:
        """Remove a journal that says nothing, or speaks of another boot. Raises OSError."""
        self._path(gpu).unlink(missing_ok=True)

    def set_aside(self, gpu: PciAddress) -> None:
        """Keep a journal that cannot be understood for whoever can, under a name that is no journal's. Raises OSError."""
        path = self._path(gpu)
        path.rename(path.with_name(f"{gpu}{ASIDE}"))

    def has_aside(self, gpu: PciAddress) -> bool:
        """Tell whether an earlier journal of this GPU was set aside in this boot."""
        return f"{gpu}{ASIDE}" in self._names()

    def forget_aside(self, gpu: PciAddress) -> None:
        """Forget a journal that was set aside: the GPU is with the host again."""
        with contextlib.suppress(OSError):
            (self._directory / f"{gpu}{ASIDE}").unlink(missing_ok=True)

    def path(self, gpu: PciAddress) -> str:
        """Return where a GPU's journal is, for a sentence."""
        return str(self._path(gpu))

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._directory))
        except OSError:
            return []

    def _path(self, gpu: PciAddress) -> Path:
        return self._directory / f"{gpu}.journal"

    def _open(self, gpu: PciAddress, flags: int) -> Journal:
        path = self._path(gpu)
        flags |= os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        return Journal(path, gpu, os.open(path, flags, 0o600))


def _text(path: Path) -> str:
    """Return a journal's text; raises OSError, also for what is no ordinary file."""
    with open(path, "rb", opener=_open_plainly) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", str(path))
        return file.read(LARGEST).decode(errors="replace")


def _open_plainly(path: str, flags: int) -> int:
    """Follow no link and wait for nobody at the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
