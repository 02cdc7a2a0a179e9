"""The kernel's device events: from the kernel itself, not after udev's rules, which may lag.

One datagram an event: `bind@/devices/pci0000:00/...`, then `NAME=value` for each property, each ended by a zero byte
(lib/kobject_uevent.c, format of UEVENT_BUFFER_SIZE bytes at most).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from gpuhandoff.host.door import Uevent

OVERFLOW = Uevent("overflow", "", "")
"""Stands for events that the kernel had no room for: whoever waits looks again."""
_KOBJECT_UEVENT = 15
_FROM_KERNEL = 1
"""The group of what the kernel sends; udev has another one. The sender's number is 0, which nobody else can have."""
_LARGEST = 1 << 14
"""Bytes; the kernel's own limit is 2 KiB."""


class MachineUevents:
    """Events of this machine, from the first subscription on."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Uevent], None]] = []
        self._socket: socket.socket | None = None

    def subscribe(self, callback: Callable[[Uevent], None]) -> Callable[[], None]:
        """Hand every event to `callback`."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _KOBJECT_UEVENT)
            self._socket.bind((0, _FROM_KERNEL))
            asyncio.get_running_loop().add_reader(self._socket, self._read, self._socket)
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def close(self) -> None:
        """Listen no longer."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self, events: socket.socket) -> None:
        while True:
            try:
                data, (sender, _) = events.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._hand_out(OVERFLOW)
                continue
            event = parse(data) if sender == 0 else None
            if event is not None:
                self._hand_out(event)

    def _hand_out(self, event: Uevent) -> None:
        for callback in list(self._callbacks):
            callback(event)


def parse(data: bytes) -> Uevent | None:
    """Return what a datagram says; None when it is no event."""
    title, *lines = data.decode(errors="replace").split("\0")
    action, at, path = title.partition("@")
    if not at or not path.startswith("/"):
        return None
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    return Uevent(action, f"/sys{path}", told.get("SUBSYSTEM", ""), told.get("DRIVER", ""))
