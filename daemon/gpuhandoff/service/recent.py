"""The latest lines of our own log, for a support report."""

from __future__ import annotations

import logging
import time
from collections import deque

from gpuhandoff.service.plain_log import PlainFormatter

MOST = 300
LONGEST = 2000
"""Characters of one; a traceback has that many."""


class RecentLines(logging.Handler):
    """Remembers what is logged, a line each."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=MOST)
        formatter = PlainFormatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a line; what cannot be formatted is no reason to fail."""
        try:
            self._lines.append(self.format(record)[:LONGEST])
        except Exception:  # noqa: BLE001  (what a handler does)
            self.handleError(record)

    def lines(self) -> list[str]:
        """Return what is remembered, oldest first."""
        return list(self._lines)
