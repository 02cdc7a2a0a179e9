"""Who opens and closes a device node, as events: inotify, which has no binding in the standard library.

/dev/vfio/GROUP being opened is what makes a detached GPU a guest's; the kernel sends no uevent for it.
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
_EVENTS = _IN_OPEN | _IN_CLOSE_WRITE | _IN_CLOSE_NOWRITE
_HEADER = struct.Struct("iIII")


class MachineOpenings:
    """Watches nodes of this machine. Needs a running event loop from the first `watch` on."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int | None = None
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, path: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever somebody opens or closes `path`, until the returned function is called.

        A node that does not exist is opened by nobody: nothing is watched.
        """
        watch = self._libc.inotify_add_watch(self._inotify(), os.fsencode(path), _EVENTS)
        if watch < 0:
            return lambda: None
        self._callbacks[watch] = callback
        return lambda: self._unwatch(watch)

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
            seen: set[int] = set()
            while len(data) >= _HEADER.size:
                watch, _, _, length = _HEADER.unpack_from(data)
                seen.add(watch)
                data = data[_HEADER.size + length :]
            for watch in seen:
                callback = self._callbacks.get(watch)
                if callback is not None:
                    callback()

    def _unwatch(self, watch: int) -> None:
        if self._callbacks.pop(watch, None) is not None and self._descriptor is not None:
            self._libc.inotify_rm_watch(self._descriptor, watch)
