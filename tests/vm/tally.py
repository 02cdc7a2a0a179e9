"""What is counted while tests run, and printed at their end."""

from __future__ import annotations

from collections import Counter

KILLS: Counter[str] = Counter()
"""Outcomes of killing the daemon: restored, complete, other."""


def sentence() -> str:
    """Return the counts in one line, empty when nobody was killed."""
    if not KILLS:
        return ""
    counted = ", ".join(f"{KILLS[outcome]} {outcome}" for outcome in ("restored", "complete", "other"))
    return f"real-kernel kills: {KILLS.total()} cases, {counted}"
