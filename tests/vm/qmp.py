"""QEMU's two JSON sockets: the machine protocol, and the agent inside the guest. Both take one command at a time."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any


class JsonSocket:
    """Newline-separated JSON over a Unix socket that QEMU listens on."""

    def __init__(self, path: Path, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                self._socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._buffer = b""

    def send(self, **message: Any) -> None:
        """Send one object."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def receive(self, timeout: float) -> dict[str, Any]:
        """Return the next object; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                text = line.replace(b"\xff", b"").strip()
                if text:
                    return dict(json.loads(text))
                continue
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("QEMU closed the socket")
            self._buffer += data

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Monitor:
    """QMP."""

    def __init__(self, path: Path) -> None:
        self._socket = JsonSocket(path, 20)
        self._events: list[str] = []
        self._socket.receive(20)
        self.execute("qmp_capabilities")

    def execute(self, command: str, timeout: float = 60, **arguments: Any) -> Any:
        """Carry out a command and return its result."""
        self._socket.send(execute=command, arguments=arguments)
        while True:
            answer = self._socket.receive(timeout)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            self._events.append(str(answer.get("event")))

    def reset(self) -> None:
        """Reset the machine, as its button does, and wait until that has happened."""
        self.execute("set-action", reboot="reset")
        self._events.clear()
        self.execute("system_reset")
        while "RESET" not in self._events:
            self._events.append(str(self._socket.receive(60).get("event")))

    def ask(self, line: str) -> str:
        """Return what the human monitor answers."""
        return str(self.execute("human-monitor-command", timeout=120, **{"command-line": line}))

    def human(self, line: str) -> str:
        """Carry out a command of the human monitor; raises when it answers anything (these are silent on success)."""
        answer = self.ask(line)
        if answer.strip():
            raise RuntimeError(f"{line}: {answer}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
