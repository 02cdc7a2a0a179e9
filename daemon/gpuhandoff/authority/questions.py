"""How many questions are open at polkit: one connection may have only so many, and callers' prompts must not use them up.

The bus lets a connection wait for 128 replies. Whoever has a password agent of their own can leave prompts open for ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gpuhandoff.errors import LimitsExceededError

AT_ONCE = 32
"""Questions that are answered at once; more wait for a moment."""
PROMPTS_PER_USER = 4
PROMPTS = 48


class Questions:
    """Lets questions through."""

    def __init__(self) -> None:
        self.place = asyncio.Semaphore(AT_ONCE)
        self._prompts: Counter[int] = Counter()

    @contextmanager
    def prompt(self, user: int) -> Iterator[None]:
        """Count an open prompt of a user; raises LimitsExceededError."""
        if self._prompts[user] >= PROMPTS_PER_USER or self._prompts.total() >= PROMPTS:
            raise LimitsExceededError(f"One user may have {PROMPTS_PER_USER} password prompts open, all users {PROMPTS}.")
        self._prompts[user] += 1
        try:
            yield
        finally:
            self._prompts[user] -= 1
            if not self._prompts[user]:
                del self._prompts[user]
