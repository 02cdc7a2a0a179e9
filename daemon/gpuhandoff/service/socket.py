"""The socket that dbus-next writes to, made patient."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any


class PatientSocket:
    """Takes a full buffer for 0 bytes sent, on which dbus-next waits for room; it takes BlockingIOError for the end.

    dbus-next offers a message's descriptors once only: they are kept until the first bytes, with which they travel, go out.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._ancillary: Sequence[tuple[int, int, Any]] = ()

    def sendmsg(self, buffers: Sequence[memoryview], ancillary: Sequence[tuple[int, int, Any]]) -> int:
        """Send what fits of the only buffer, and the descriptors."""
        self._ancillary = ancillary
        return self.send(buffers[0])

    def send(self, data: memoryview) -> int:
        """Send what fits."""
        try:
            sent = self._socket.sendmsg([data], self._ancillary)
        except BlockingIOError:
            return 0
        self._ancillary = ()
        return sent
