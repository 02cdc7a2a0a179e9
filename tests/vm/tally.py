"""What is counted while tests run, and printed at their end."""

from __future__ import annotations

from collections import Counter

KILLS: Counter[str] = Counter()
"""Outcomes of killing the daemon: restored, complete, other."""

SILENCES: list[str] = []
"""What a test host looked like from outside when it had to be roused."""


def sentences() -> list[str]:
    """Return the counts, a line each; none of what did not happen."""
    lines = []
    if KILLS:
        counted = ", ".join(f"{KILLS[outcome]} {outcome}" for outcome in ("restored", "complete", "other"))
        lines.append(f"real-kernel kills: {KILLS.total()} cases, {counted}")
    if SILENCES:
        lines += [f"test hosts that fell silent and were roused: {len(SILENCES)}", *SILENCES]
    return lines
