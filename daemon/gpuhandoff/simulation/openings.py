"""Who opens and closes a device node of the simulated machine, as events (inotify on the real one)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SimulatedOpenings:
    """Callbacks by node path."""

    def __init__(self) -> None:
        self._watches: list[tuple[str, Callable[[], None]]] = []

    def watch(self, path: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever somebody opens or closes `path`, until the returned function is called."""
        entry = (path, callback)
        self._watches.append(entry)

        def unwatch() -> None:
            self._watches = [one for one in self._watches if one is not entry]

        return unwatch

    def touched(self, path: str) -> None:
        """Tell that a node was opened or closed; those who watch it hear of it a moment later."""
        for entry in self._watches:
            if entry[0] == path:
                asyncio.get_running_loop().call_soon(self._call, entry)

    def _call(self, entry: tuple[str, Callable[[], None]]) -> None:
        if any(one is entry for one in self._watches):
            entry[1]()
