"""Other processes, from /proc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection, Iterator

import psutil

from gpuhandoff.host.door import OpenNode
from gpuhandoff.host.scan import Found, scan
from gpuhandoff.host.threads import others
from gpuhandoff.model.world import Process

_KTHREADD = 2


class MachineProcesses:
    """The processes of this machine."""

    async def all(self) -> tuple[Process, ...]:
        """Return every process that is not a kernel thread."""
        return await asyncio.to_thread(lambda: tuple(process for pid in psutil.pids() if (process := _process(pid))))

    async def holding(self, nodes: Collection[str], *, mappings: bool = True) -> tuple[OpenNode, ...]:
        """Return who has any of the nodes open or mapped. A deleted node's holder still has it: its link says so."""
        if not nodes:
            return ()
        return await asyncio.to_thread(lambda: _open_nodes(scan(nodes, mappings=mappings)))

    def state(self, process: Process) -> str | None:
        """Return the one-letter state; that of another thread where the first one has ended and the process has not."""
        fields = _stat(f"/proc/{process.pid}")
        if fields is None or int(fields[_START]) != process.start_time:
            return None
        if fields[0] != "Z":
            return fields[0]
        return next((each[0] for thread in others(str(process.pid)) if (each := _stat(thread)) is not None), None)

    def signal(self, process: Process, number: int) -> bool:
        """Send a signal by pidfd, to this very process."""
        with contextlib.suppress(OSError), _pidfd(process) as descriptor:
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, number)
                return True
        return False

    async def ended(self, processes: Collection[Process], *, timeout: float) -> bool:
        """Wait until all are gone."""
        try:
            async with asyncio.timeout(timeout):
                for process in processes:
                    await _ended(process)
        except TimeoutError:
            return False
        return True

    def resident(self, process: Process) -> int:
        """Return resident memory in bytes."""
        with contextlib.suppress(psutil.Error):
            if self.state(process) is not None:
                return int(psutil.Process(process.pid).memory_info().rss)
        return 0


_START = 19
"""Start time is field 22 of /proc/PID/stat, the 20th after the name."""


def _stat(whose: str) -> list[str] | None:
    """Return the fields of /proc/PID/stat, or of a thread's, after the name, which may contain anything."""
    try:
        with open(f"{whose}/stat", "rb") as file:
            return file.read().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _process(pid: int) -> Process | None:
    fields = _stat(f"/proc/{pid}")
    if fields is None or pid == _KTHREADD or int(fields[1]) == _KTHREADD:
        return None
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = "".join(letter if letter.isprintable() else "?" for letter in file.read().rstrip("\n"))
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            group = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "")
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return Process(pid, int(fields[_START]), name, uid, group)


def _open_nodes(found: Found) -> tuple[OpenNode, ...]:
    """Return what a scan found, of processes that are still there."""
    nodes = []
    for pid, held in found:
        process = _process(pid)
        if process is not None:
            ways = sorted({way for each in held.values() for way in each})
            nodes.append(OpenNode(process, tuple(sorted(held)), tuple(ways)))
    return tuple(nodes)


@contextlib.contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    """Yield a descriptor of the process, None when it is gone: checked after opening, as then the pid is pinned."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        yield None
        return
    try:
        fields = _stat(f"/proc/{process.pid}")
        yield descriptor if fields is not None and int(fields[_START]) == process.start_time else None
    finally:
        os.close(descriptor)


async def _ended(process: Process) -> None:
    with _pidfd(process) as descriptor:
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(descriptor, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
