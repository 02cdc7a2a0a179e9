"""Who has device nodes mapped, without a descriptor even, from /proc/PID/maps.

A mapping keeps the driver's module after its descriptor is closed (kernel.md 8). To read the list the kernel takes the
process's mmap lock (fs/proc/task_mmu.c), and for that a process which hangs in a driver lets everybody wait. So all of it
is in a thread of its own, beside that which reads descriptors, and waited for with patience that ends. Most of the time is
the kernel's, outside of Python's lock, so that the thread helps with the descriptors when it has seen all mappings.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import struct
import threading
from collections.abc import Callable, Collection, Sequence

from gpuhandoff.host.threads import others

DELETED = " (deleted)"
PATIENCE = 10.0
"""Seconds after the descriptors are read; a busy machine with two thousand processes needs one."""
_READ = 1 << 16
_QUERY = struct.Struct("=9Q4I2Q")
"""struct procmap_query (linux/fs.h): size, flags, address, begin, end, ..., sizes of buffers, the name's buffer, another."""
_PROCMAP_QUERY = 3 << 30 | _QUERY.size << 16 | ord("f") << 8 | 17
_NEXT_SHARED_FILE = 0x08 | 0x10 | 0x20
"""PROCMAP_QUERY_VMA_SHARED, _COVERING_OR_NEXT_VMA, _FILE_BACKED_VMA."""
_ADDRESS, _END = slice(16, 24), slice(32, 40)
_NAME = 4096
_DEV = b"/dev/"

log = logging.getLogger(__name__)
_hung: list[threading.Thread] = []


class Question:
    """What the kernel is asked of one process after the other: memory that is laid out once. Of one thread only."""

    def __init__(self) -> None:
        self._name = ctypes.create_string_buffer(_NAME)
        address = ctypes.addressof(self._name)
        self._blank = _QUERY.pack(_QUERY.size, _NEXT_SHARED_FILE, *[0] * 9, _NAME, 0, address, 0)
        self._query = bytearray(self._blank)

    def ask(self, descriptor: int) -> set[str] | None:
        """Return the names in /dev of what is mapped and shared, as mappings of a card are; None from an older kernel.

        Raises ProcessLookupError for what has no memory: a thread of the kernel's, or one that has ended.

        That it can be (6.11 and later) takes a quarter of the time, as most of a process's mappings are private: its program
        and libraries. A private mapping of a node is thus not seen, unless the node is open as well.
        """
        names: set[str] = set()
        query = self._query
        query[:] = self._blank
        while True:
            try:
                fcntl.ioctl(descriptor, _PROCMAP_QUERY, query)
            except OSError as error:
                if error.errno == errno.ESRCH and not names:
                    raise
                return names if error.errno in {errno.ENOENT, errno.ESRCH} else None
            name = self._name.value
            if name.startswith(_DEV):
                names.add(os.fsdecode(name))
            end = query[_END]
            query[:] = self._blank
            query[_ADDRESS] = end


class MappingScan:
    """One look at the mappings of some processes, which begins at once; `afterwards` is done in the same thread."""

    def __init__(self, pids: Sequence[str], nodes: Collection[str], afterwards: Callable[[], None]) -> None:
        self._pids = pids
        self._nodes = nodes
        self._afterwards = afterwards
        self._at = ""
        self._found: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._look, name="mappings", daemon=True)
        _hung[:] = [one for one in _hung if one.is_alive()]
        if not _hung:  # else one more thread would hang at the same place
            self._thread.start()

    def found(self) -> list[tuple[str, str]]:
        """Return process ids and nodes: all, or, when a process hangs, those known within PATIENCE."""
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                log.warning("process %s hangs: who else has the GPU mapped, without a descriptor, is not known", self._at)
                _hung.append(self._thread)
        return list(self._found)

    def _look(self) -> None:
        question = Question()
        for pid in self._pids:
            self._at = pid
            for node in mapped(pid, self._nodes, question):
                self._found.append((pid, node))
        self._afterwards()


def mapped(pid: str, nodes: Collection[str], question: Question) -> set[str]:
    """Return which of the nodes a process has mapped; none when it is gone."""
    names = _names(f"/proc/{pid}", question)
    if names is None:  # its first thread may have ended; all others have the same memory
        names = next((found for thread in others(pid) if (found := _names(thread, question)) is not None), set())
    return {name.removesuffix(DELETED) for name in names}.intersection(nodes)


def _names(whose: str, question: Question) -> set[str] | None:
    """Return the names of what a process or thread, by its directory in /proc, has mapped; None when it has no memory."""
    try:
        descriptor = os.open(f"{whose}/maps", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        names = question.ask(descriptor)
        return _read(descriptor) if names is None else names
    except OSError:
        return None  # gone meanwhile
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> set[str] | None:
    """Return the names of what is mapped from some /dev, None where there is no memory at all."""
    names: set[str] | None = None
    while data := os.read(descriptor, _READ):  # whole lines each time
        names = names or set()
        if b" /dev/" in data:
            for line in data.decode(errors="replace").splitlines():
                _, begins, rest = line.partition(" /dev/")
                if begins:
                    names.add(f"/dev/{rest}")
    return names
