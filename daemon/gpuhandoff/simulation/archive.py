"""What a simulated machine has written down about itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

HOST_NAME = "simbox"


class SimulatedArchive:
    """Users are those of its logins; its kernel keeps no log."""

    def __init__(self, machine: SimulatedMachine, recent: Callable[[], list[str]] = list) -> None:
        self._machine = machine
        self._recent = recent
        self.kernel: list[str] | None = None
        """Lines for tests; None is a kernel without a log."""

    def kernel_lines(self, relevant: Callable[[str], bool]) -> list[str]:
        """Return what matters of the lines that were put here."""
        if self.kernel is None:
            raise OSError("a simulated kernel keeps no log")
        return [line for line in self.kernel if relevant(line)]

    def daemon_lines(self) -> list[str]:
        """Return what was logged lately."""
        return self._recent()

    def users(self) -> list[str]:
        """Return who logs in here."""
        return [login.user for login in self._machine.sessions.logins if login.kind == "user"]

    def host_names(self) -> list[str]:
        """Return a name."""
        return [HOST_NAME]
