"""How a call can end, as exit statuses that scripts can tell apart."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Documented in --help and in gpuhandoff(1)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    DENIED = 4
    ABSENT = 5
    TIMED_OUT = 6
    STUCK = 7
    WARNED = 8
    CANNOT_RUN = 126
    NOT_FOUND = 127
    CANCELLED = 130


class CallError(Exception):
    """The daemon, or the bus, answered with an error, or nobody answered (`GONE`, `NO_BUS`, `TIMEOUT`)."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


GONE = "org.freedesktop.DBus.Error.NoReply"
"""The bus says so itself when a callee leaves without an answer."""
NO_BUS = "org.freedesktop.DBus.Error.NoServer"
TIMEOUT = "org.freedesktop.DBus.Error.Timeout"
NOT_STARTED = "org.freedesktop.DBus.Error.TimedOut"
"""The bus has waited in vain for the daemon to start; also when that has long failed (systemd issue 28877)."""
NO_PROGRAM = "org.freedesktop.DBus.Error.FileNotFound"
NOT_RUN = "org.freedesktop.DBus.Error.Spawn.ExecFailed"
"""Ours, where the program of `run` or `inhibit` is not there, or cannot be run."""

_BY_NAME = {
    "NotFound": Exit.REFUSED,
    "Ambiguous": Exit.REFUSED,
    "Busy": Exit.REFUSED,
    "InUse": Exit.REFUSED,
    "Inhibited": Exit.REFUSED,
    "NotIsolated": Exit.REFUSED,
    "NeedsConsent": Exit.REFUSED,
    "Unsupported": Exit.REFUSED,
    "WrongState": Exit.REFUSED,
    "LimitsExceeded": Exit.REFUSED,
    "InvalidArgs": Exit.USAGE,
    "AccessDenied": Exit.DENIED,
    "InteractiveAuthorizationRequired": Exit.DENIED,
    "ServiceUnknown": Exit.ABSENT,
    "NameHasNoOwner": Exit.ABSENT,
    "NoReply": Exit.ABSENT,
    "NoServer": Exit.ABSENT,
    "Disconnected": Exit.ABSENT,
    "Timeout": Exit.TIMED_OUT,
    "TimedOut": Exit.TIMED_OUT,
    "Stuck": Exit.STUCK,
    "Cancelled": Exit.CANCELLED,
    "FileNotFound": Exit.NOT_FOUND,
}


def status_of(error_name: str) -> Exit:
    """Return the exit status for a D-Bus error name."""
    if error_name == NOT_STARTED or ".Spawn." in error_name:
        return Exit.ABSENT
    return _BY_NAME.get(error_name.rpartition(".")[2], Exit.FAILED)
