"""The kernel's device events, by pyudev: from the kernel itself, not after udev's rules, which may lag."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pyudev

from gpuhandoff.host.door import Uevent

OVERFLOW = Uevent("overflow", "", "")
"""Stands for events that the kernel had no room for: whoever waits looks again."""


class MachineUevents:
    """Events of this machine, from the first subscription on."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Uevent], None]] = []
        self._monitor: pyudev.Monitor | None = None

    def subscribe(self, callback: Callable[[Uevent], None]) -> Callable[[], None]:
        """Hand every event to `callback`."""
        if self._monitor is None:
            self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), "kernel")
            self._monitor.start()
            asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._read)
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def close(self) -> None:
        """Listen no longer."""
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor = None

    def _read(self) -> None:
        if self._monitor is None:
            return
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._hand_out(OVERFLOW)
                    continue
                raise
            if device is None:
                return
            properties = device.properties
            self._hand_out(
                Uevent(
                    str(device.action),
                    str(device.sys_path),
                    str(properties.get("SUBSYSTEM", "")),
                    str(properties.get("DRIVER", "")),
                )
            )

    def _hand_out(self, event: Uevent) -> None:
        for callback in list(self._callbacks):
            callback(event)
