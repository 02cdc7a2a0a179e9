"""The simulated kernel's device events."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context

from gpuhandoff.host.door import Uevent
from gpuhandoff.simulation.lives import life_of


class SimulatedUevents:
    """Events reach the subscribers in the order in which the kernel makes them (kernel.md 9)."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[Callable[[Uevent], None], Context]] = []

    def subscribe(self, callback: Callable[[Uevent], None]) -> Callable[[], None]:
        """Hand every event to `callback` until the returned function is called."""
        entry = (callback, copy_context())
        self._subscribers.append(entry)

        def unsubscribe() -> None:
            self._subscribers = [one for one in self._subscribers if one is not entry]

        return unsubscribe

    def emit(self, action: str, path: str, subsystem: str, driver: str = "") -> None:
        """Make an event."""
        event = Uevent(action, path, subsystem, driver)
        for subscriber, context in tuple(self._subscribers):
            life = life_of(context)
            if life is None or not life.ended:
                context.run(subscriber, event)
