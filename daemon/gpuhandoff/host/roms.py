"""Files that somebody else names, read with care: nothing but a regular file, no more than is wanted, never waited for."""

from __future__ import annotations

import errno
import os
import stat

HIDDEN = ("/home", "/var/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - compared, never written to
"""Where the daemon's unit lets it see nothing, or files of its own (ProtectHome, PrivateTmp in systemd.exec(5)).

On images of Fedora /home is a link to /var/home, which systemd follows."""


def is_hidden(path: str) -> bool:
    """Tell whether a file lies where this daemon does not see what everybody else sees, a link's target included."""
    real = os.path.realpath(path)
    return any(real.startswith(f"{one}/") for one in HIDDEN)


def read_file(path: str, most: int) -> bytes:
    """Return at most `most` bytes from the beginning of a regular file; raises OSError."""
    _regular(os.stat(path), path)  # Before it is opened: to open a device can wake it, or start a watchdog.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _regular(os.fstat(descriptor), path)
        parts = []
        while most > 0 and (part := os.read(descriptor, most)):
            parts.append(part)
            most -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _regular(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
