"""What the machine has written down about itself: read for support reports, never for a decision."""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, Protocol

from systemd import journal  # type: ignore[attr-defined]  # its modules are C

UNIT = "gpuhandoffd.service"
MOST = 300
"""Lines of one kind."""
LONGEST = 2000
"""Characters of a line."""
SEARCHED = 20_000
"""Entries that are looked at, the newest."""
SEARCH_SECONDS = 5.0
_PEOPLE = range(1000, 60_000)
"""Their user ids; those of systemd's dynamic users and of nobody are above."""


class Archive(Protocol):
    """Every function may wait for the disk, and is called in a thread. Failures are OSError, with a sentence for people."""

    def kernel_lines(self, relevant: Callable[[str], bool]) -> list[str]:
        """Return the newest relevant lines of the kernel's log since the machine was started, oldest first."""

    def daemon_lines(self) -> list[str]:
        """Return the newest lines that this daemon, or an earlier one since the machine was started, has logged."""

    def users(self) -> list[str]:
        """Return the names of the people who can log in."""

    def host_names(self) -> list[str]:
        """Return the names of this machine."""


class NoArchive:
    """Nothing is written down."""

    def kernel_lines(self, relevant: Callable[[str], bool]) -> list[str]:  # noqa: ARG002  (there is nothing to look at)
        """There are none."""
        raise OSError("nothing keeps it here")

    def daemon_lines(self) -> list[str]:
        """There are none."""
        raise OSError("nothing keeps it here")

    def users(self) -> list[str]:
        """Nobody is known."""
        return []

    def host_names(self) -> list[str]:
        """It has none."""
        return []


class MachineArchive:
    """systemd's journal and the user database of the real machine.

    `recent` tells the lines of this daemon where systemd's journal does not get them.
    """

    def __init__(self, recent: Callable[[], list[str]]) -> None:
        self._recent = recent

    def kernel_lines(self, relevant: Callable[[str], bool]) -> list[str]:
        """Read the kernel's lines in systemd's journal."""
        lines = _search([{"_TRANSPORT": "kernel"}], relevant)
        if lines is None:
            raise OSError("systemd's journal has no line of the kernel")
        return lines

    def daemon_lines(self) -> list[str]:
        """Read our lines, and what systemd says about us, in systemd's journal; without it only this daemon's are known."""
        lines = _search([{"_SYSTEMD_UNIT": UNIT}, {"UNIT": UNIT}]) if "JOURNAL_STREAM" in os.environ else None
        return self._recent() if lines is None else lines

    def users(self) -> list[str]:
        """Read the user database."""
        return [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid in _PEOPLE]

    def host_names(self) -> list[str]:
        """Return the name, also without its domain."""
        name = socket.gethostname()
        return [name, name.partition(".")[0]]


def _search(matches: list[dict[str, str]], relevant: Callable[[str], bool] = lambda _: True) -> list[str] | None:
    """Return the newest lines of this boot that have any of these fields, or None when there is no such entry at all."""
    found: list[str] = []
    seen = 0
    until = time.monotonic() + SEARCH_SECONDS
    with journal.Reader() as reader:
        for number, match in enumerate(matches):
            if number:
                reader.add_disjunction()
            reader.this_boot()
            reader.add_match(**match)
        reader.seek_tail()
        while seen < SEARCHED and len(found) < MOST and time.monotonic() < until and (entry := reader.get_previous()):
            seen += 1
            text = str(entry.get("MESSAGE", ""))
            if relevant(text):
                found.append(_line(entry, text))
    return found[::-1] if seen else None


def _line(entry: Mapping[str, Any], text: str) -> str:
    moment = entry["__REALTIME_TIMESTAMP"].astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z {text}"[:LONGEST]
