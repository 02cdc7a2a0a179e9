"""Lines of the log as text and nothing else.

What other people chose, a process's name or a line of a file, is no order to a terminal and begins no line of its own.
"""

from __future__ import annotations

import logging
from types import TracebackType

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def plain(text: str, *, keep: str = "") -> str:
    """Return a text in which what is not printable is written out as Python does; `keep` lists what stays."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text)


class PlainFormatter(logging.Formatter):
    """Formats a record into one line, and its traceback into some."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Return the line."""
        record.message = plain(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: _Raised) -> str:  # noqa: N802
        """Return the traceback."""
        return plain(super().formatException(ei), keep="\n")
