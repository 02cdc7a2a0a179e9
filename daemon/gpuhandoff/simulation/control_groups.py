"""Control groups: freezing and reclaim (kernel.md 6, 7)."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from gpuhandoff.simulation.tree import failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

ROOT = "/sys/fs/cgroup"
FREEZE_SECONDS = 0.02


class ControlGroups:
    """The unified hierarchy; groups come and go with the units that they belong to."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._wanted: dict[str, bool] = {}
        self._frozen: set[str] = set()
        self.add("/")

    def add(self, path: str) -> None:
        """Make a group; nothing happens when it is there."""
        if path in self._wanted:
            return
        self._wanted[path] = False
        tree, base = self._machine.tree, (ROOT + path).rstrip("/")
        tree.trigger(f"{base}/memory.reclaim", lambda text: self._reclaim(base, text))
        tree.text(f"{base}/cgroup.procs", lambda: self._processes(path))
        if path != "/":
            tree.text(f"{base}/cgroup.freeze", lambda: f"{int(self._wanted[path])}\n", lambda t: self._write(path, t))
            tree.text(f"{base}/cgroup.events", lambda: self._events(path))
            tree.text(f"{base}/memory.current", lambda: f"{self._current(path)}\n")

    def remove(self, path: str) -> None:
        """Remove a group with those below it."""
        for one in [one for one in self._wanted if one == path or one.startswith(f"{path}/")]:
            del self._wanted[one]
            self._frozen.discard(one)
        self._machine.tree.remove(ROOT + path)

    def is_frozen(self, path: str) -> bool:
        """Tell whether processes in a group stand still."""
        return any(path == frozen or path.startswith(f"{frozen}/") for frozen in self._frozen)

    async def freeze(self, path: str, frozen: bool) -> None:  # noqa: FBT001
        """Ask for it and wait until every process stands still; D-state ones delay it."""
        self.request(path, frozen=frozen)
        await self._machine.waits.until(lambda: (path in self._frozen) is frozen, "cgroup_freeze", state="S")

    def request(self, path: str, *, frozen: bool) -> None:
        """Write cgroup.freeze; cgroup.events tells when it has happened."""
        self._wanted[path] = frozen
        delay = FREEZE_SECONDS * self._machine.waits.pace if frozen else 0
        asyncio.get_running_loop().call_later(delay, self._settle, path)

    def frozen(self) -> list[str]:
        """Return the frozen groups."""
        return sorted(self._frozen)

    def _settle(self, path: str) -> None:
        if path not in self._wanted:
            return
        processes = self._machine.processes.in_cgroup(path)
        if not self._wanted[path]:
            self._frozen.discard(path)
            for process in processes:
                self._machine.processes.deliver(process)
        elif not any(process.state == "D" for process in processes):
            self._frozen.add(path)
        self._machine.waits.wake()

    def _write(self, path: str, text: str) -> None:
        if text.strip() not in {"0", "1"}:
            raise failure(errno.EINVAL, f"{ROOT}{path}/cgroup.freeze")
        self.request(path, frozen=text.strip() == "1")

    def _events(self, path: str) -> str:
        return f"populated {int(bool(self._machine.processes.in_cgroup(path)))}\nfrozen {int(self.is_frozen(path))}\n"

    def _processes(self, path: str) -> str:
        return "".join(f"{one.pid}\n" for one in self._machine.processes.in_cgroup(path) if one.cgroup == path)

    def _current(self, path: str) -> int:
        return sum(process.memory for process in self._machine.processes.in_cgroup(path))

    async def _reclaim(self, base: str, text: str) -> None:
        """Reclaim bytes; `swappiness=` came with 6.12, and less than asked for is EAGAIN."""
        words = text.split()
        options = words[1:]
        if not words or not words[0].isdigit() or (options and not self._machine.newer_than(6, 9)):
            raise failure(errno.EINVAL, f"{base}/memory.reclaim")
        wanted = int(words[0])
        if await self._machine.memory.reclaim(wanted, swap="swappiness=0" not in options) < wanted:
            raise failure(errno.EAGAIN, f"{base}/memory.reclaim")
