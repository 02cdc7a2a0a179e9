"""Errors, told to a person who uses this command: its options in place of the bus's, and what to try."""

from __future__ import annotations

import re

from gpuhandoff_command.exits import GONE, NO_BUS, TIMEOUT, CallError, Exit, status_of
from gpuhandoff_command.terminal import clean

_OPTION = re.compile(r"\boption ([a-z-]+)(?:=([a-z]+))?")
_BARE = re.compile(r"\b(hugepages)=([a-z]+)")
_CONSENT = re.compile(r"--(?:stop-display|terminate-holders|accept-risk|evict-guest)")
_FLAGS = {"quiet": "quiet-host"}
_TAKE_NOTHING = {"stop-display", "accept-risk", "quiet"}


def sentence(error: CallError, command: str = "") -> str:
    """Return what to tell a person about an error in a command such as `reclaim`."""
    text = translate(clean(error.message), command)
    match status_of(error.name):
        case Exit.ABSENT if error.name == NO_BUS:
            return f"The system bus cannot be reached: {text}"
        case Exit.ABSENT if error.name == GONE:
            return (
                "gpuhandoffd went away before it had answered. When it starts again it puts back what was under way; "
                "`gpuhandoff status` shows how far it is, `systemctl status gpuhandoffd` why it went."
            )
        case Exit.ABSENT:
            reason = text.rstrip(".")
            return f"gpuhandoffd is not running and could not be started: {reason}. Try `systemctl status gpuhandoffd`."
        case Exit.DENIED if error.name.endswith("InteractiveAuthorizationRequired"):
            return f"{text} Try it without --no-ask, or as root."
        case Exit.DENIED:
            return f"Access denied: {text}"
        case Exit.TIMED_OUT if error.name == TIMEOUT:
            return f"{text} It may still be at work: `gpuhandoff status` shows it."
        case Exit.REFUSED if error.name.endswith(".NeedsConsent") and not _CONSENT.search(text):
            return f"{text} Consent is given with --stop-display, --terminate-holders and --accept-risk."
    return text


def translate(text: str, command: str = "") -> str:
    """Name options as they are written on the command line."""

    def option(found: re.Match[str]) -> str:
        key, value = found[1], found[2]
        if key == "holders" and value == "terminate":
            return "option --evict-guest" if command == "reclaim" else "option --terminate-holders"
        flag = f"option --{_FLAGS.get(key, key)}"
        return f"{flag} {value}" if value and key not in _TAKE_NOTHING else flag

    return _BARE.sub(r"--\1 \2", _OPTION.sub(option, text))
