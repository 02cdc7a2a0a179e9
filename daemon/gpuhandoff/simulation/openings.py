"""Who opens and closes a device node of the simulated machine, as events (inotify on the real one)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context

_Watch = tuple[str, Callable[[], None], Context]


class SimulatedOpenings:
    """Callbacks by node path."""

    def __init__(self) -> None:
        self._watches: list[_Watch] = []

    def watch(self, path: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever somebody opens or closes `path`, until the returned function is called."""
        entry = (path, callback, copy_context())
        self._watches.append(entry)

        def unwatch() -> None:
            self._watches = [one for one in self._watches if one is not entry]

        return unwatch

    def touched(self, path: str) -> None:
        """Tell that a node was opened or closed; those who watch it hear of it a moment later."""
        for entry in self._watches:
            if entry[0] == path:
                asyncio.get_running_loop().call_soon(self._call, entry, context=entry[2])

    def _call(self, entry: _Watch) -> None:
        if any(one is entry for one in self._watches):
            entry[1]()
