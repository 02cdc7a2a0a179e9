"""Waiting for what must not be left behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


async def outlast(task: asyncio.Future[Any]) -> None:
    """Wait until a task has ended, whatever way, and however often the one who waits is cancelled meanwhile.

    For whoever was cancelled already and raises that afterwards.
    """
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # seen
