"""Who opens and closes a device node, as events: inotify, which has no binding in the standard library.

/dev/vfio/GROUP being opened is what makes a detached GPU a guest's; the kernel sends no uevent for it. The directory is
watched, not the node: to watch a node takes the permission to read it, which the unit's device policy denies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable

_IN_CLOSE_WRITE = 0x08
_IN_CLOSE_NOWRITE = 0x10
_IN_OPEN = 0x20
_IN_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x01000000
_EVENTS = _IN_OPEN | _IN_CLOSE_WRITE | _IN_CLOSE_NOWRITE | _IN_ONLYDIR
_HEADER = struct.Struct("iIII")

Callback = Callable[[], None]


class MachineOpenings:
    """Watches nodes of this machine. Needs a running event loop from the first `watch` on."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int | None = None
        self._callbacks: dict[int, dict[str, list[Callback]]] = {}
        """By the number of the directory's watch, and the node's name in it."""

    def watch(self, path: str, callback: Callback) -> Callback:
        """Call back whenever somebody opens or closes `path`, until the returned function is called.

        In a directory that does not exist nothing is opened: nothing is watched.
        """
        directory, _, name = path.rpartition("/")
        watch = self._libc.inotify_add_watch(self._inotify(), os.fsencode(directory), _EVENTS)
        if watch < 0:
            return lambda: None
        self._callbacks.setdefault(watch, {}).setdefault(name, []).append(callback)
        return lambda: self._unwatch(watch, name, callback)

    def close(self) -> None:
        """Watch no longer."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        self._callbacks.clear()

    def _inotify(self) -> int:
        if self._descriptor is None:
            descriptor = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            if descriptor < 0:
                raise OSError(ctypes.get_errno(), "inotify cannot be used")
            self._descriptor = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._read)
        return self._descriptor

    def _read(self) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, 65536)
            told: dict[Callback, None] = {}
            while len(data) >= _HEADER.size:
                watch, mask, _, length = _HEADER.unpack_from(data)
                name = os.fsdecode(data[_HEADER.size : _HEADER.size + length].rstrip(b"\0"))
                told |= dict.fromkeys(self._concerned(watch, mask, name))
                data = data[_HEADER.size + length :]
            for callback in told:
                callback()

    def _concerned(self, watch: int, mask: int, name: str) -> list[Callback]:
        if mask & _IN_OVERFLOW:
            return [one for names in self._callbacks.values() for some in names.values() for one in some]
        if mask & _IN_IGNORED:  # the directory is gone, and with it the watch
            return [one for some in self._callbacks.pop(watch, {}).values() for one in some]
        return list(self._callbacks.get(watch, {}).get(name, ()))

    def _unwatch(self, watch: int, name: str, callback: Callback) -> None:
        names = self._callbacks.get(watch, {})
        if callback not in names.get(name, ()):
            return
        names[name].remove(callback)
        if not names[name]:
            del names[name]
        if not names:
            del self._callbacks[watch]
            if self._descriptor is not None:
                self._libc.inotify_rm_watch(self._descriptor, watch)
