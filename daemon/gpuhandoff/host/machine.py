"""The real kernel: sysfs, procfs, modules."""

from __future__ import annotations

import os
import stat

from gpuhandoff.host.door import DEADLINE, Pending, Purpose
from gpuhandoff.host.workers import Workers

NONE = Purpose()


class MachineKernel:
    """The kernel this daemon runs on; `root` is another directory in tests."""

    def __init__(self, workers: Workers, root: str = "", purpose: Purpose = NONE) -> None:
        self._workers = workers
        self._root = root
        self._purpose = purpose

    def on_behalf(self, purpose: Purpose) -> MachineKernel:
        """Return this kernel for work with a purpose."""
        return MachineKernel(self._workers, self._root, purpose)

    def pending(self, purpose: Purpose) -> tuple[Pending, ...]:
        """Return what the workers left behind."""
        return self._workers.pending(purpose)

    async def settled(self, gpu: str) -> None:
        """Wait for all that the workers left behind."""
        await self._workers.settled(gpu)

    def read(self, path: str) -> str:
        """Return a lock-free attribute."""
        with open(self._root + path, encoding="utf-8", errors="replace") as file:
            return file.read().removesuffix("\n")

    def link(self, path: str) -> str | None:
        """Return the last component of a link's target."""
        try:
            return os.readlink(self._root + path).rpartition("/")[2]
        except OSError:
            return None

    def resolve(self, path: str) -> str:
        """Return the path with every link resolved."""
        return os.path.realpath(self._root + path).removeprefix(self._root)

    def entries(self, path: str) -> list[str]:
        """Return the names in a directory."""
        try:
            return sorted(os.listdir(self._root + path))
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Tell whether something is there."""
        return os.path.exists(self._root + path)

    def version(self, path: str) -> object:
        """Return which file it is, and when it was written."""
        try:
            found = os.stat(self._root + path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def device_number(self, path: str) -> int | None:
        """Return a node's device number."""
        try:
            found = os.stat(self._root + path)
        except OSError:
            return None
        return found.st_rdev if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else None

    async def read_locked(self, path: str, *, deadline: float = DEADLINE) -> str:
        """Read in a child."""
        value = await self._workers.do(f"reading {path}", deadline, self._purpose, what="read", path=self._root + path)
        return str(value).removesuffix("\n")

    async def read_head(self, path: str, count: int, *, deadline: float = DEADLINE) -> bytes:
        """Read in a child."""
        what = f"reading {path}"
        value = await self._workers.do(what, deadline, self._purpose, what="head", path=self._root + path, text=str(count))
        return bytes.fromhex(value)

    async def write(self, path: str, text: str, *, deadline: float = DEADLINE) -> None:
        """Write in a child."""
        if not text:
            raise ValueError(f"an empty write to {path} would do nothing")
        what = f"writing {text.strip()!r} to {path}"
        await self._workers.do(what, deadline, self._purpose, what="write", path=self._root + path, text=text)

    async def load_module(self, name: str, *, deadline: float = DEADLINE) -> None:
        """Run modprobe from a child."""
        await self._workers.do(f"loading {name}", deadline, self._purpose, what="load", path=name)

    async def remove_module(self, name: str, *, deadline: float = DEADLINE) -> None:
        """Remove a module in a child."""
        await self._workers.do(f"removing the module {name}", deadline, self._purpose, what="remove", path=name)

    async def sync(self, *, deadline: float = DEADLINE) -> None:
        """Write back in a child."""
        await self._workers.do("writing dirty pages back", deadline, self._purpose, what="sync")
