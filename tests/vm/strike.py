"""Runs inside the test host: one call, struck at one exact system call of the daemon's; prints what came of it.

usage: strike.py MOMENT NUMBER GPU COMMAND...

MOMENT says what happens when. The daemon gets a SIGKILL:
    before     line NUMBER of the journal is about to be written: all that comes before it has happened
    after      line NUMBER has been written and nothing else has happened
    unlink     the journal is about to be removed
    unlinked   the journal has been removed and nothing else has happened
It is stopped:
    stop       line NUMBER has been written and nothing else has happened
The journal cannot be kept:
    full       line NUMBER and all after it cannot be written
    broken     line NUMBER and all after it cannot be flushed
Nothing happens to it:
    never      the lines are counted

strace does it, on the thread that writes the journal. What comes of it is compared with /root/before.json.
"""

from __future__ import annotations

import json
import os
import re
import select
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
    "stop": ("fdatasync", "signal=SIGSTOP:when={}"),
    "full": ("write", "error=ENOSPC:when={}+"),
    "broken": ("fdatasync", "error=EIO:when={}+"),
    "never": ("write", ""),
}
DEADLY = ("before", "after", "unlink", "unlinked")
SHORTLY = 5.0
"""Seconds between the end of a killed daemon's connection and its own."""
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


def processes() -> set[str]:
    """Return the pids of the daemon's unit."""
    try:
        return set(Path("/sys/fs/cgroup/system.slice/gpuhandoffd.service/cgroup.procs").read_text().split())
    except OSError:  # between two daemons the group may go, also while it is being read
        return set()


def restarted(earlier: set[str]) -> bool:
    """Wait until systemd has started another daemon by itself, and that is ready and has ended its recoveries.

    It is ready only when those have begun. `systemctl start` joins the start that is under way.
    """
    if not until(lambda: processes() - earlier, PATIENCE):
        return False
    subprocess.run(["systemctl", "start", "gpuhandoffd.service"], check=False)
    return until(lambda: not busy(), PATIENCE)


def attach(pid: int, moment: str, number: str, journal: Path) -> subprocess.Popen[str]:
    """Have strace wait for the moment; it tells on its stderr what it sees.

    Both are kept on one processor: between two emulated ones each system call would cost milliseconds.
    """
    os.sched_setaffinity(0, {0})
    os.sched_setaffinity(pid, {0})
    call, blow = TRACED[moment]
    words = ["strace", "-s", "99", "-P", str(journal), "-p", str(pid), f"--trace={call}"]
    if blow:
        words.append(f"--inject={call}:{blow.format(number)}")
    strace = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    first = strace.stderr.readline() if strace.stderr else ""
    if "attached" not in first:
        raise RuntimeError(first)
    return strace


def ended(process: int, timeout: float) -> bool:
    """Wait for a process's end, by its pidfd."""
    return bool(select.select([process], [], [], timeout)[0])


def said(seen: list[str]) -> list[str]:
    """Return the beginning of each line of the journal: `will 3 bind-vfio`, `did 3`, `held true`."""
    begins = re.compile(r'write\(\d+, "\{"(\w+)":"?([\w.:-]+)"?(?:,"step":"([\w-]+)")?')
    written = (begins.match(line.replace('\\"', '"')) for line in seen)
    return [" ".join(filter(None, found.groups())) for found in written if found]


def main() -> None:
    """Strike once."""
    moment, number, gpu, *command = sys.argv[1:]
    journal = Path("/run/gpuhandoff", f"{gpu}.journal")
    pid = int(unit("MainPID")["MainPID"])
    earlier = processes()
    daemon = os.pidfd_open(pid)
    strace = attach(pid, moment, number, journal)
    call = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    assert call.stderr is not None
    if moment == "stop":
        stopped = any("stopped by SIGSTOP" in line for line in strace.stderr)
        print(json.dumps({"stopped": stopped}))  # noqa: T201
        return
    if moment == "unlinked":
        until(lambda: not journal.exists(), PATIENCE)
        os.kill(pid, signal.SIGKILL)
        strace.kill()
    errors = call.stderr.read()
    killed = ended(daemon, SHORTLY if moment in DEADLY else 0)
    strace.send_signal(signal.SIGINT)
    lines = said(strace.stderr.read().splitlines())
    if moment == "never":
        print(json.dumps({"lines": lines, "errors": errors}))  # noqa: T201
        return
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    there = not killed or restarted(earlier)
    before = json.loads(Path("/root/before.json").read_text())
    now = snapshot()
    deadline = time.monotonic() + SETTLED
    while not journal.exists() and now != before and time.monotonic() < deadline:
        now = snapshot()
    restarts = unit("NRestarts")["NRestarts"]
    found = {"killed": killed, "there": there, "restarts": restarts, "errors": errors, "now": now}
    print(json.dumps(found))  # noqa: T201


main()
