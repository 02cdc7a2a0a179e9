"""systemd's descriptor store of the simulated machine: it holds copies, so they outlive a daemon."""

from __future__ import annotations

import os


class DescriptorStore:
    """What is kept for the unit, whichever daemon runs."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}

    def clear(self) -> None:
        """Forget all: the unit was stopped, or the machine rebooted."""
        for name in tuple(self.kept):
            os.close(self.kept.pop(name))


class SimulatedDescriptors:
    """The store as one daemon sees it: with what it was handed when it was started."""

    def __init__(self, store: DescriptorStore) -> None:
        self._store = store
        self._inherited = {name: os.dup(descriptor) for name, descriptor in store.kept.items()}

    def keep(self, name: str, descriptor: int) -> None:
        """Have a copy kept under a name."""
        self.drop(name)
        self._store.kept[name] = os.dup(descriptor)

    def drop(self, name: str) -> None:
        """Have it kept no longer."""
        descriptor = self._store.kept.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def inherited(self, name: str) -> int | None:
        """Return what an earlier daemon had kept."""
        return self._inherited.pop(name, None)

    def forget(self) -> None:
        """Let go of the rest."""
        while self._inherited:
            name, descriptor = self._inherited.popitem()
            self.drop(name)
            os.close(descriptor)
