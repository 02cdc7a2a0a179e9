"""Runs inside the test host: one call, during which the daemon is killed at one exact system call; prints what came of it.

usage: strike.py MOMENT NUMBER GPU COMMAND...

MOMENT says when the daemon gets its SIGKILL:
    before     line NUMBER of the journal is about to be written: all that comes before it has happened
    after      line NUMBER has been written and nothing else has happened
    unlink     the journal is about to be removed
    unlinked   the journal has been removed and nothing else has happened
    never      the lines are counted

strace does it, on the thread that writes the journal. What comes of it is compared with /root/before.json.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, "/root")
from observe import snapshot  # type: ignore[import-not-found,unused-ignore]

TRACED = {
    "before": ("write", "signal=SIGKILL:when={}"),
    "after": ("fdatasync", "signal=SIGKILL:when={}"),
    "unlink": ("unlink", "signal=SIGKILL"),
    "unlinked": ("unlink", "delay_exit=100s"),
    "never": ("write", ""),
}
PATIENCE = 60.0
"""Seconds for a daemon to be there again."""
SETTLED = 20.0
"""Seconds for what a recovery starts and does not wait for: the desktop."""


def until(fulfilled: Callable[[], object], timeout: float) -> bool:
    """Look again and again: none of this sends an event to a script."""
    deadline = time.monotonic() + timeout
    while not fulfilled():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def unit(*names: str) -> dict[str, str]:
    """Return properties of the daemon's unit."""
    words = ["systemctl", "show", "gpuhandoffd.service", *(f"--property={name}" for name in names)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in shown.splitlines())


def busy() -> bool:
    """Tell whether a job runs, without having the bus start a daemon."""
    words = ("busctl", "--system", "--auto-start=no", "get-property", "org.gpuhandoff.Manager")
    place = ("/org/gpuhandoff/Manager", "org.gpuhandoff.Manager", "Busy")
    return subprocess.run([*words, *place], capture_output=True, text=True, check=False).stdout.strip() != "b false"


def back(killed: int) -> bool:
    """Tell whether another daemon is ready, which it is only when its recoveries have begun, and has ended them."""
    shown = unit("MainPID", "ActiveState")
    return shown["ActiveState"] == "active" and shown["MainPID"] not in {"0", str(killed)} and not busy()


def strike(pid: int, moment: str, number: str, journal: Path, command: list[str]) -> list[str]:
    """Carry out the command under strace; return what strace saw."""
    call, blow = TRACED[moment]
    tracing = ["strace", "-s", "99", "-P", str(journal), "-p", str(pid), f"--trace={call}"]
    if blow:
        tracing.append(f"--inject={call}:{blow.format(number)}")
    with subprocess.Popen(tracing, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        first = strace.stderr.readline()
        if "attached" not in first:
            raise RuntimeError(first)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            if moment == "unlinked":
                until(lambda: not journal.exists(), PATIENCE)
                os.kill(pid, signal.SIGKILL)
        if moment == "never":
            strace.send_signal(signal.SIGINT)
        return strace.stderr.read().splitlines()


def said(seen: list[str]) -> list[str]:
    """Return the beginning of each line of the journal: `will 3`, `held true`."""
    written = (re.match(r'write\(\d+, "\{\\"(\w+)\\":(?:\\")?([\w.:-]+)', line) for line in seen)
    return [" ".join(found.groups()) for found in written if found]


def main() -> None:
    """Strike once."""
    moment, number, gpu, *command = sys.argv[1:]
    journal = Path("/run/gpuhandoff", f"{gpu}.journal")
    pid = int(unit("MainPID")["MainPID"])
    seen = strike(pid, moment, number, journal, command)
    killed = any("killed by SIGKILL" in line for line in seen)
    there = not killed or until(lambda: back(pid), PATIENCE)
    before = json.loads(Path("/root/before.json").read_text())
    now = snapshot()
    deadline = time.monotonic() + SETTLED
    while not journal.exists() and now != before and time.monotonic() < deadline:
        now = snapshot()
    result = {"killed": killed, "there": there, "restarts": unit("NRestarts")["NRestarts"], "lines": said(seen), "now": now}
    print(json.dumps(result))  # noqa: T201


main()
