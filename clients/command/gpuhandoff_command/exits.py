"""Exit statuses, and errors of the daemon as they are told to a person."""

from __future__ import annotations

from enum import IntEnum

from gpuhandoff_command.connection import CallError


class Exit(IntEnum):
    """What scripts can tell apart. Documented in gpuhandoff(1)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    DENIED = 4
    ABSENT = 5
    TIMED_OUT = 6
    STUCK = 7
    CANCELLED = 130


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
    "Disconnected": Exit.ABSENT,
    "NoReply": Exit.TIMED_OUT,
    "Timeout": Exit.TIMED_OUT,
    "TimedOut": Exit.TIMED_OUT,
    "Stuck": Exit.STUCK,
    "Cancelled": Exit.CANCELLED,
}
_HINTS = {
    "option stop-display": "option --stop-display",
    "option holders=terminate": "option --terminate-holders",
    "hugepages=transparent": "--hugepages transparent",
}


def status_of(error_name: str) -> Exit:
    """Return the exit status for a D-Bus error name."""
    last = error_name.rpartition(".")[2]
    return Exit.ABSENT if ".Spawn." in error_name else _BY_NAME.get(last, Exit.FAILED)


def sentence(error: CallError) -> str:
    """Return what to tell a person."""
    match status_of(error.name):
        case Exit.ABSENT:
            return (
                "gpuhandoffd is not running and could not be started. `systemctl status gpuhandoffd` tells why; "
                "`sudo systemctl start gpuhandoffd` starts it."
            )
        case Exit.DENIED if error.name.endswith("InteractiveAuthorizationRequired"):
            return "This needs a password, and nobody could be asked for it here. Try again without --no-ask, or as root."
    text = error.message
    for bus, option in _HINTS.items():
        text = text.replace(bus, option)
    return text
