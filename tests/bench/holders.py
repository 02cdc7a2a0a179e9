"""How long it takes to say who has a card open, against `fuser` and `lsof`, in one run: `./run bench-holders`.

Two thousand processes with thirty descriptors each. Some have a node open, and a few have it mapped only, which pins a
driver as well, and which the other two do not see. /dev/full and /dev/zero stand for the nodes of a card: to all three they
are names and numbers like any other.

All take turns, each round begins with another one, and the ratios are those within one round: what else the machine does
then falls on all of them. Processor time is that of user and kernel, all threads and children together. The daemon runs
already when it is asked; the other two have to be started, which is two hundredths of their time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from gpuhandoff.host.proc import MachineProcesses

PROCESSES, DESCRIPTORS = 2000, 30
NODES = ("/dev/full", "/dev/zero")
OPENS_EACH, MAPS_EACH = 50, 400
"""Every so many processes there is one that has the first node open, and one that has the second one mapped."""
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Figures:
    """One look: seconds, and who was found."""

    wall: float
    processor: float
    found: frozenset[int]


def main() -> int:
    """Measure, print, return 0."""
    ours, whole = "gpuhandoff", "  mappings too"
    looks: dict[str, Callable[[], set[int]]] = {
        ours: lambda: _holding(mappings=False),
        whole: lambda: _holding(mappings=True),
    }
    for name, command in (("fuser", ["fuser", *NODES]), ("lsof", ["lsof", "-w", "-n", "-P", "-t", *NODES])):
        if shutil.which(name) is None:
            print(f"{name:14} is not installed")
        else:
            looks[name] = partial(_pids, command)
    with crowd():
        seen = measure(looks)
    everybody = seen[whole][-1].found
    print(f"{'':14}  elapsed  processor")
    for name, rounds in seen.items():
        found = rounds[-1].found
        missing = "" if name == ours else f", {len(everybody - found)} not found"
        times = " ms   ".join(
            f"{middle(each) * 1000:5.0f}" for each in zip(*((one.wall, one.processor) for one in rounds), strict=True)
        )
        print(f"{name:14} {times} ms  {len(found)} holders{missing}")
        for mine in (ours, whole) if name not in {ours, whole} else ():
            pairs = list(zip(seen[mine], rounds, strict=True))
            elapsed, spent = middle(a.wall / b.wall for a, b in pairs), middle(a.processor / b.processor for a, b in pairs)
            print(f"{'':14} {elapsed:5.2f}      {spent:5.2f}     of that: {mine.strip()}")
    return 0


def measure(looks: Mapping[str, Callable[[], set[int]]]) -> dict[str, list[Figures]]:
    """Have all look in turns, and each one first as often as any."""
    names, seen = list(looks), {name: list[Figures]() for name in looks}
    for number in range(ROUNDS):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began, spent = time.perf_counter(), _spent()
            found = looks[name]()
            seen[name].append(Figures(time.perf_counter() - began, _spent() - spent, frozenset(found)))
    return seen


def middle(numbers: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(numbers)


def _spent() -> float:
    """Return the seconds of processor time of this process and of its children that have ended."""
    both = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _holding(*, mappings: bool) -> set[int]:
    return {one.process.pid for one in asyncio.run(MachineProcesses().holding(NODES, mappings=mappings))}


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
