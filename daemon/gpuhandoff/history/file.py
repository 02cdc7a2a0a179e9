"""history.jsonl on the disk: appended to, flushed, and written anew when it has grown.

The only file of gpuhandoff that outlives a reboot. Every function here waits for the disk: call them in a thread, one at a
time. Failures are OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

NAME = "history.jsonl"
NEW = "history.jsonl.new"
"""What a replacement is called until it is whole."""
KEPT = 512 * 1024
"""Bytes that a replacement has at most."""
LARGE = 1024 * 1024
"""Bytes from which on the file wants replacing."""
LARGEST = 4 * LARGE
"""Bytes beyond which nothing is appended, and of which the newest are read."""


class HistoryFile:
    """One file in a directory of its own, for root only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / NAME

    def lines(self) -> list[bytes]:
        """Return all lines that are not empty; the first may be a part of one, and so may be any after a crash."""
        try:
            with self._opened(os.O_RDONLY) as descriptor:
                size = os.fstat(descriptor).st_size
                data = _read(descriptor, min(size, LARGEST), max(size - LARGEST, 0))
        except FileNotFoundError:
            return []
        return [line for line in data.split(b"\n") if line.strip()]

    def append(self, line: bytes, *, flush: bool) -> int:
        """Append a line, which ends with a newline, and return the file's size. It is kept as a whole, or not at all."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with self._opened(os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
            size = os.fstat(descriptor).st_size
            if size + len(line) > LARGEST:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self._path))
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = b"\n" + line if torn else line
            if os.write(descriptor, data) != len(data):
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            if flush:
                os.fdatasync(descriptor)
        if flush and size == 0:
            self._flush_directory()
        return size + len(data)

    def replace(self, lines: Sequence[bytes]) -> int:
        """Have the file consist of the last of these lines, as many as may be kept; return its size.

        At any moment it is either what it was, or what it shall be.
        """
        data = b"".join(_newest(lines))
        new = self._directory / NEW
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(new))
            os.fsync(descriptor)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        new.replace(self._path)
        self._flush_directory()
        return len(data)

    def _flush_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        """Open the file; whatever else is there under its name is refused, and never waited for."""
        descriptor = os.open(self._path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(self._path))
            yield descriptor
        finally:
            os.close(descriptor)


def _read(descriptor: int, count: int, offset: int) -> bytes:
    parts = []
    while count > 0 and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        count -= len(part)
        offset += len(part)
    return b"".join(parts)


def _newest(lines: Sequence[bytes]) -> Sequence[bytes]:
    size = 0
    for index in range(len(lines) - 1, -1, -1):
        size += len(lines[index])
        if size > KEPT:
            return lines[index + 1 :]
    return lines
