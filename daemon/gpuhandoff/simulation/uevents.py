"""The simulated kernel's device events."""

from __future__ import annotations

from collections.abc import Callable

from gpuhandoff.host.door import Uevent


class SimulatedUevents:
    """Events reach the subscribers in the order in which the kernel makes them (kernel.md 9)."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Uevent], None]] = []

    def subscribe(self, callback: Callable[[Uevent], None]) -> Callable[[], None]:
        """Hand every event to `callback` until the returned function is called."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def emit(self, action: str, path: str, subsystem: str, driver: str = "") -> None:
        """Make an event."""
        event = Uevent(action, path, subsystem, driver)
        for subscriber in tuple(self._subscribers):
            subscriber(event)
