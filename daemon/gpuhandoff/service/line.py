"""Calls that wait to be looked at: each caller's in their order, all callers in turn. Who sends much waits for it alone."""

from __future__ import annotations

from collections import OrderedDict, deque

MOST = 8000
LARGEST = 4 << 20
"""Bytes of all."""


class Line:
    """One queue of messages for each caller."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[bytes]] = OrderedDict()
        self._count = 0
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def is_full(self) -> bool:
        """Whether there is more than should be kept."""
        return self._count >= MOST or self._size >= LARGEST

    def add(self, sender: str, message: bytes) -> None:
        """Put a caller's message in line."""
        self._queues.setdefault(sender, deque()).append(message)
        self._count += 1
        self._size += len(message)

    def shed(self) -> bytes:
        """Return the latest message of the caller who has most in line, which is not kept."""
        sender = max(self._queues, key=lambda one: len(self._queues[one]))
        message = self._queues[sender].pop()
        if not self._queues[sender]:
            del self._queues[sender]
        return self._took(message)

    def pop(self) -> bytes:
        """Return the first message of the caller whose turn it is."""
        sender, queue = self._queues.popitem(last=False)
        message = queue.popleft()
        if queue:
            self._queues[sender] = queue
        return self._took(message)

    def _took(self, message: bytes) -> bytes:
        self._count -= 1
        self._size -= len(message)
        return message
