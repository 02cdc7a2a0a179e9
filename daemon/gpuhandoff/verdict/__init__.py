"""Pure: what to expect of a card that has been with a guest, from tables, this machine, and what it has shown."""

from __future__ import annotations

from gpuhandoff.verdict.judge import judge

__all__ = ["judge"]
