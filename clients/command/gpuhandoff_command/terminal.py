"""How things look: colours and signs where a terminal can show them, plain lines elsewhere, JSON on request."""

from __future__ import annotations

import json
import locale
import os
import sys
from typing import Any, TextIO

_COLOURS = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}
_SIGNS = {"apply": ("…", "..."), "done": ("✓", "ok"), "undo": ("↶", "<-"), "undone": ("↶", "<-"), "bad": ("✗", "!!")}


class Terminal:
    """Where output goes, and in which form."""

    def __init__(self, *, as_json: bool, out: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out = out or sys.stdout
        self.live = self._out.isatty() and not as_json and os.environ.get("TERM") != "dumb"
        self._colours = self.live and "NO_COLOR" not in os.environ
        self._unicode = "utf" in locale.getpreferredencoding(do_setlocale=False).lower()
        self._open_line = False

    def line(self, text: str = "") -> None:
        """Print one line of text for people; nothing when JSON is wanted."""
        if not self.as_json:
            self._finish_line()
            print(text, file=self._out, flush=True)

    def value(self, value: Any) -> None:
        """Print one JSON document on one line; nothing otherwise."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, sort_keys=True), file=self._out, flush=True)

    def replace(self, text: str, *, finished: bool) -> None:
        """Print a line that the next one replaces, unless it is finished. Only a terminal is shown unfinished ones."""
        if self.as_json or not (finished or self.live):
            return
        if self.live:
            print(f"\r\x1b[2K{text}", end="\n" if finished else "", file=self._out, flush=True)
            self._open_line = not finished
        else:
            print(text, file=self._out, flush=True)

    def error(self, text: str) -> None:
        """Print an error where errors go."""
        self._finish_line()
        print(f"gpuhandoff: {text}", file=sys.stderr, flush=True)

    def paint(self, text: str, colour: str) -> str:
        """Return text in a colour, where colours are shown."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colours else text

    def sign(self, phase: str) -> str:
        """Return the sign of a phase."""
        return _SIGNS[phase][0 if self._unicode else 1]

    def _finish_line(self) -> None:
        if self._open_line:
            self._out.write("\n")
            self._open_line = False


def clean(text: object) -> str:
    """Return text from elsewhere without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))
