"""How long it takes to say who has a card open, against `fuser` and `lsof`, in one run: `./run bench-holders`.

Two thousand processes with thirty descriptors each. Some have a node open, and a few have it mapped only, which pins a
driver as well, and which the other two do not see. /dev/full and /dev/zero stand for the nodes of a card: to all three they
are names and numbers like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuhandoff.host.proc import MachineProcesses

PROCESSES, DESCRIPTORS = 2000, 30
NODES = ("/dev/full", "/dev/zero")
OPENS_EACH, MAPS_EACH = 50, 400
"""Every so many processes there is one that has the first node open, and one that has the second one mapped."""
ROUNDS = 5


def main() -> int:
    """Measure, print, return 0."""
    with crowd():
        ours, found = best(lambda: _holding(mappings=False))
        say("gpuhandoff", ours, found, found)
        whole, everybody = best(lambda: _holding(mappings=True))
        say("  mappings too", whole, everybody, everybody)
        for name, command in (("fuser", ["fuser", *NODES]), ("lsof", ["lsof", "-w", "-n", "-P", "-t", *NODES])):
            if shutil.which(name) is None:
                print(f"{name:14} is not installed")
                continue
            theirs, seen = best(lambda command=command: _pids(command))  # type: ignore[misc]
            say(name, theirs, seen, everybody)
            print(f"{'':14} gpuhandoff takes {ours / theirs:.2f} of that, with mappings {whole / theirs:.2f}")
    return 0


def _holding(*, mappings: bool) -> set[int]:
    return {one.process.pid for one in asyncio.run(MachineProcesses().holding(NODES, mappings=mappings))}


def say(name: str, seconds: float, seen: set[int], ours: set[int]) -> None:
    """Print one line: how long, how many, and how many of ours are missing."""
    print(f"{name:14} {seconds * 1000:7.0f} ms  {len(seen)} holders, {len(ours - seen)} not found")


def best(measured: Callable[[], set[int]]) -> tuple[float, set[int]]:
    """Return the shortest of some rounds, and what was found."""
    shortest, found = float("inf"), set[int]()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = measured()
        shortest = min(shortest, time.perf_counter() - began)
    return shortest, found


def _pids(command: list[str]) -> set[int]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {int("".join(filter(str.isdecimal, word))) for word in done.stdout.split() if word[0].isdecimal()}


@contextmanager
def crowd() -> Iterator[None]:
    """Have all the processes for as long as this lasts."""
    gc.freeze()
    ready, tell = os.pipe()
    with tempfile.NamedTemporaryFile() as file:
        pids = [_start(number, tell, file.name) for number in range(PROCESSES)]
        try:
            arrived = 0
            while arrived < PROCESSES:
                arrived += len(os.read(ready, PROCESSES))
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            for pid in pids:
                os.waitpid(pid, 0)


def _start(number: int, tell: int, file: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    with contextlib.suppress(BaseException):
        kept: list[object] = []
        while len(os.listdir("/proc/self/fd")) <= DESCRIPTORS:
            kept.append(_something(len(kept), file))
        if number % OPENS_EACH == 0:
            os.open(NODES[0], os.O_RDONLY)
        if number % MAPS_EACH == 7:
            descriptor = os.open(NODES[1], os.O_RDWR)
            ctypes.CDLL(None).mmap(None, ctypes.c_size_t(4096), 3, 1, descriptor, ctypes.c_long(0))
            os.close(descriptor)
        os.write(tell, b".")
        while True:
            signal.pause()
    os._exit(1)


def _something(place: int, file: str) -> object:
    match place % 5:
        case 0:
            return os.open("/dev/null", os.O_RDONLY)
        case 1:
            return os.open(file, os.O_RDONLY)
        case 2:
            return socket.socketpair()
        case 3:
            return os.eventfd(0)
    return os.pipe()


if __name__ == "__main__":
    sys.exit(main())
