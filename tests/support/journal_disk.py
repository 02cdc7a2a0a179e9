"""The disk under the journals: full, read-only, or gone in the middle of a line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpuhandoff.simulation.lives import KilledError
from gpuhandoff.transaction import journal


class Disk:
    """What the journal's own module takes for the operating system."""

    def __init__(self) -> None:
        self.lines = 0
        """Written so far, or refused."""
        self.written = 0
        """Bytes."""
        self.refuses: Callable[[int], int] = lambda _: 0
        """Return the errno with which the line of this number, from 1, is refused, or 0."""
        self.ends_at = -1
        """The byte before which the daemon dies, by `kill`."""
        self.kill: Callable[[], None] = lambda: None
        self.read_only = False

    def __getattr__(self, name: str) -> Any:
        """Be the operating system otherwise."""
        return getattr(os, name)

    def write(self, descriptor: int, data: bytes) -> int:
        """Write as many bytes as there is room for."""
        self.lines += 1
        number = self.refuses(self.lines)
        if number:
            raise OSError(number, os.strerror(number))
        left = self.ends_at - self.written
        if self.ends_at >= 0 and left < len(data):
            os.write(descriptor, data[:left])
            self.kill()
            raise KilledError
        self.written += len(data)
        return os.write(descriptor, data)

    def forget(self) -> None:
        """Work as it should from now on."""
        self.refuses, self.ends_at, self.read_only = lambda _: 0, -1, False


@contextlib.contextmanager
def disk() -> Iterator[Disk]:
    """Put a disk that can fail under all journals."""
    one = Disk()
    unlink = Path.unlink

    def unlinked(self: Path, *, missing_ok: bool = False) -> None:
        if one.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        unlink(self, missing_ok=missing_ok)

    before = vars(journal)["os"]
    vars(journal)["os"] = one
    Path.unlink = unlinked  # type: ignore[assignment,method-assign]
    try:
        yield one
    finally:
        vars(journal)["os"] = before
        Path.unlink = unlink  # type: ignore[method-assign]
