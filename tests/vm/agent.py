"""Commands inside the test host, through qemu-guest-agent."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.qmp import JsonSocket

CHUNK = 48 << 10
PATIENCE = 20
"""Seconds in which the agent answers, however busy the machine is."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    status: int
    output: str
    errors: str = ""


class Agent:
    """The agent, which survives a restored snapshot: resynchronised with `sync`."""

    def __init__(self, path: Path, rouse: Callable[[], None]) -> None:
        self._socket = JsonSocket(path, 20)
        self._rouse = rouse
        self._numbers = itertools.count(int(time.time()) & 0xFFFF)

    def sync(self, timeout: float) -> None:
        """Wait until the agent answers, whatever it was in the middle of; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            number = next(self._numbers)
            try:
                self._socket.send_raw(b"\xff")  # fills up while a slow machine boots, and nobody reads it
                self._socket.send(execute="guest-sync", arguments={"id": number})
                while True:
                    if self._socket.receive(2).get("return") == number:
                        return
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    def ask(self, command: str, **arguments: Any) -> Any:
        """Carry out one of the agent's own commands."""
        self._socket.send(execute=command, arguments=arguments)
        try:
            answer = self._socket.receive(PATIENCE)
        except TimeoutError:
            self._rouse()
            answer = self._socket.receive(PATIENCE)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def run(self, command: str, timeout: float = 60) -> Done:
        """Run a shell command to its end. What it leaves in the background must not keep its output open."""
        return self.wait(self.start(command), timeout)

    def start(self, command: str) -> int:
        """Start a shell command and return its pid."""
        started = self.ask("guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True})
        return int(started["pid"])

    def wait(self, pid: int, timeout: float = 60) -> Done:
        """Wait for a started command."""
        deadline = time.monotonic() + timeout
        pause = 0.02
        while True:
            status = self.ask("guest-exec-status", pid=pid)
            if status["exited"]:
                return Done(int(status.get("exitcode", -1)), _text(status, "out-data"), _text(status, "err-data"))
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {pid} in the test host does not end")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.3)

    def push(self, source: Path, target: str) -> None:
        """Copy a file into the test host."""
        self._write(source.read_bytes(), target)

    def push_text(self, text: str, target: str) -> None:
        """Write a file in the test host."""
        self._write(text.encode(), target)

    def _write(self, data: bytes, target: str) -> None:
        handle = self.ask("guest-file-open", path=target, mode="w")
        for start in range(0, len(data), CHUNK):
            self.ask(
                "guest-file-write", handle=handle, **{"buf-b64": base64.b64encode(data[start : start + CHUNK]).decode()}
            )
        self.ask("guest-file-close", handle=handle)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _text(status: dict[str, Any], name: str) -> str:
    return base64.b64decode(status.get(name, "")).decode(errors="replace")
