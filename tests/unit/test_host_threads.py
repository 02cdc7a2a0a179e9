"""A process whose first thread has ended: it lives, and has all that it had, though its own directory in /proc is empty."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gpuhandoff.host import mappings
from gpuhandoff.host.proc import MachineProcesses
from gpuhandoff.host.scan import MAPPED, OPEN, scan
from gpuhandoff.host.threads import others
from gpuhandoff.model.world import Process

FULL, ZERO = "/dev/full", "/dev/zero"
GOES_ON = """
import ctypes, os, sys, threading, time
os.open('/dev/full', os.O_RDONLY)
d = os.open('/dev/zero', os.O_RDWR)
ctypes.CDLL(None).mmap(None, ctypes.c_size_t(4096), 3, 1, d, ctypes.c_long(0))
os.close(d)
def live():
    while open(f'/proc/self/task/{os.getpid()}/stat').read().rpartition(')')[2].split()[0] != 'Z':
        time.sleep(0.001)
    print('ready', flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=live).start()
ctypes.CDLL(None).syscall(ctypes.c_long(60), ctypes.c_long(0))
"""
"""exit, of one thread: what a program's main does with pthread_exit."""


@pytest.fixture
def headless() -> Iterator[subprocess.Popen[str]]:
    """Have a process whose first thread has ended, with one node open and another mapped."""
    process = subprocess.Popen([sys.executable, "-c", GOES_ON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def value(pid: int) -> Process:
    """Return a process as the door names it."""
    return next(one for one in await MachineProcesses().all() if one.pid == pid)


def test_what_it_has_is_seen(headless: subprocess.Popen[str]) -> None:
    assert os.listdir(f"/proc/{headless.pid}/fd") == []
    assert dict(scan([FULL, ZERO]))[headless.pid] == {FULL: [OPEN], ZERO: [MAPPED]}
    assert dict(scan([FULL, ZERO], mappings=False))[headless.pid] == {FULL: [OPEN]}


def test_what_it_has_is_seen_on_an_older_kernel(headless: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old(*_: object) -> None:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(fcntl, "ioctl", too_old)
    assert mappings.mapped(str(headless.pid), [ZERO], mappings.Question()) == {ZERO}


def test_it_is_there_until_its_last_thread_has_ended(headless: subprocess.Popen[str]) -> None:
    """What is told to end and takes no notice gets SIGKILL only as long as it counts as there."""

    async def main() -> None:
        door = MachineProcesses()
        process = await value(headless.pid)
        assert door.state(process) == "S"
        assert not await door.ended([process], timeout=0.05)
        assert [one.process for one in await door.holding([FULL]) if one.process.pid == headless.pid] == [process]
        assert door.signal(process, signal.SIGSTOP)
        for _ in range(1000):
            if door.state(process) == "T":
                break
            await asyncio.sleep(0.001)
        assert door.state(process) == "T"
        assert door.signal(process, signal.SIGKILL)
        assert await door.ended([process], timeout=10)
        assert door.state(process) is None, "a zombie that nobody has waited for yet"

    asyncio.run(main())


def test_one_thread_has_no_others() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert others(str(process.pid)) == []
        process.communicate(b"\n")
    assert others(str(process.pid)) == []
