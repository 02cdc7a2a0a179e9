"""How things look: colours and signs where a terminal can show them, plain lines elsewhere, JSON on request."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from typing import Any, TextIO

_COLOURS = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}
_SIGNS = {
    "apply": ("…", ".."),
    "done": ("✓", "ok"),
    "undo": ("↶", "<-"),
    "undone": ("↶", "<-"),
    "failed": ("✗", "!!"),
    "arrow": ("→", "->"),
}
_LETTERS = str.maketrans({"…": "...", "→": "->", "“": '"', "”": '"'})


class Terminal:
    """Where output goes, and in which form. Output that cannot be written ends nothing: a job's terminal may die of the job.

    A reader that went away is not an error. A stream that was closed from the beginning is one that nobody reads.
    """

    def __init__(self, *, as_json: bool, out: TextIO | None = None, errors: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out = out or sys.stdout or _nowhere()
        self._errors = errors or sys.stderr or _nowhere()
        self.live = self._out.isatty() and not as_json and os.environ.get("TERM", "dumb") != "dumb"
        self._colours = self.live and not os.environ.get("NO_COLOR")
        self.unicode = _locale_is_utf8()
        self.broken = False
        """Nothing can be written any more."""
        self.unwritten = ""
        """Why not, where that is an error."""
        self._errors_broken = False
        self._draft = False
        for stream in (self._out, self._errors):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")

    def line(self, text: str = "") -> None:
        """Print one line of text for people; nothing when JSON is wanted."""
        if not self.as_json:
            self._finish_draft()
            self._write(f"{text}\n")

    def value(self, value: Any) -> None:
        """Print one JSON document on one line; nothing otherwise."""
        if self.as_json:
            self._write(f"{json.dumps(value, sort_keys=True)}\n")

    def draft(self, text: str) -> None:
        """Show a line that the next one replaces; only a terminal is shown any."""
        if self.live:
            self._write(f"\r\x1b[2K{text}")
            self._draft = True

    def settle(self, text: str) -> None:
        """Print a line in place of the draft."""
        if self._draft:
            self._write("\r\x1b[2K")
            self._draft = False
        self.line(text)

    def error(self, text: str) -> None:
        """Print an error where errors go."""
        self._finish_draft()
        try:
            print(f"gpuhandoff: {self._plain(text)}", file=self._errors, flush=True)
        except OSError:
            self._errors_broken = True

    def paint(self, text: str, colour: str) -> str:
        """Return text in a colour, where colours are shown."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colours else text

    def sign(self, name: str) -> str:
        """Return a sign by its name."""
        return _SIGNS[name][0 if self.unicode else 1]

    @property
    def width(self) -> int:
        """Columns."""
        return shutil.get_terminal_size().columns

    def close(self) -> None:
        """Leave a terminal's cursor on a line of its own, and a pipe without complaints."""
        self._finish_draft()
        for stream, broken in ((self._out, self.broken), (self._errors, self._errors_broken)):
            if broken and stream in {sys.stdout, sys.stderr}:  # the interpreter writes at its end what is left over
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _write(self, text: str) -> None:
        if self.broken:
            return
        try:
            self._out.write(self._plain(text))
            self._out.flush()
        except OSError as error:
            self.broken = True
            self.unwritten = "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)

    def _plain(self, text: str) -> str:
        return text if self.unicode else text.translate(_LETTERS).encode("ascii", "replace").decode()

    def _finish_draft(self) -> None:
        if self._draft:
            self._write("\n")
            self._draft = False


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def clean(text: object) -> str:
    """Return text from elsewhere on one line and without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " if letter in "\n\t" else "?" for letter in str(text))


def _locale_is_utf8() -> bool:
    """Whether the user asked for UTF-8: Python itself would take it for granted even in the C locale (PEP 538, 540)."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = os.environ.get(name)
        if value and not (name == "LC_CTYPE" and value == "C.UTF-8" and os.environ.get("LANG", "C") in {"", "C", "POSIX"}):
            return "utf-8" in value.lower() or "utf8" in value.lower()
    return False
