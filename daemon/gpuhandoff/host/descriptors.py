"""systemd's descriptor store: what outlives a daemon that is killed, restarted or upgraded."""

from __future__ import annotations

import os

from systemd import daemon  # type: ignore[attr-defined]  # its modules are C


class MachineDescriptors:
    """The store of this daemon's unit; without a service manager nothing is kept."""

    def __init__(self) -> None:
        self._inherited: dict[str, int] = {}
        for descriptor, name in daemon.listen_fds_with_names().items():
            os.set_inheritable(descriptor, False)
            if name in self._inherited:
                os.close(descriptor)
            else:
                self._inherited[name] = descriptor

    def keep(self, name: str, descriptor: int) -> None:
        """Have a copy kept under a name, and none of before."""
        self.drop(name)
        daemon.notify(f"FDSTORE=1\nFDNAME={name}", fds=[descriptor])

    def drop(self, name: str) -> None:
        """Have it kept no longer."""
        daemon.notify(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def inherited(self, name: str) -> int | None:
        """Return what an earlier daemon had kept."""
        return self._inherited.pop(name, None)

    def forget(self) -> None:
        """Let go of the rest."""
        while self._inherited:
            name, descriptor = self._inherited.popitem()
            self.drop(name)
            os.close(descriptor)
