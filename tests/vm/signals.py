"""What the daemon sends while something happens in the test host."""

from __future__ import annotations

import json
from typing import Any

from tests.vm.bench_host import BenchHost

FILE = "/tmp/signals"
PING = "busctl --system call org.gpuhandoff.Manager / org.freedesktop.DBus.Peer Ping"


class Signals:
    """Listens from its making until it is asked what it heard."""

    def __init__(self, host: BenchHost) -> None:
        self._host = host
        command = f"busctl --system monitor --json=short org.gpuhandoff.Manager > {FILE} 2>&1 & echo $! > {FILE}.pid"
        host.run(f"rm -f {FILE}; {{ {command}; }} </dev/null")
        host.wait_for(f"{{ {PING}; grep -q '^{{' {FILE}; }}")

    def wait_for(self, text: str) -> None:
        """Wait until a message with a text in it has been sent."""
        self._host.wait_for(f"grep -q -e '{text}' {FILE}")

    def heard(self, member: str) -> list[tuple[Any, ...]]:
        """Stop listening; return the arguments of every signal of a name, in order."""
        self._host.run(f"{PING}; kill $(cat {FILE}.pid)", check=False)
        lines = [json.loads(line) for line in self._host.run(f"grep '^{{' {FILE}").output.splitlines()]
        return [tuple(one["payload"]["data"]) for one in lines if one.get("member") == member and one["type"] == "signal"]
