"""Kernel operations in children, on this very kernel: a pipe that nobody reads stands for a driver that does not return."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gpuhandoff.host.door import OverdueError, Purpose
from gpuhandoff.host.machine import MachineKernel
from gpuhandoff.host.proc import MachineProcesses
from gpuhandoff.host.workers import Workers
from gpuhandoff.workshop import Workshop

NAME = f"{os.getpid() & 0xFFFF:04x}:01:00.0"
"""Other runs of these tests have their workers on this machine, too."""
CARD = Purpose(NAME, "c")
PATIENCE = 20
OVERDUE = 0.5
"""Seconds: until then a busy machine has had the child sleep."""


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    before = {child.pid for child in psutil.Process().children()}
    made = Workshop.start()
    (child,) = [one for one in psutil.Process().children() if one.pid not in before]
    yield made
    made.close()
    os.waitpid(child.pid, 0)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """What is opened for writing here does not return before somebody opens it for reading."""
    os.mkfifo(tmp_path / "unbind")
    yield tmp_path / "unbind"
    os.close(os.open(tmp_path / "unbind", os.O_RDONLY | os.O_NONBLOCK))


def kernel(workers: Workers, purpose: Purpose = CARD) -> MachineKernel:
    return MachineKernel(workers).on_behalf(purpose)


def drain(pipe: Path) -> str:
    """Read what was written, and so let the writer go."""
    return pipe.read_text()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def hang(workers: Workers, pipe: Path) -> OverdueError:
    with pytest.raises(OverdueError) as caught:
        await kernel(workers).write(str(pipe), "0000:01:00.1", deadline=OVERDUE)
    return caught.value


async def test_what_is_written_arrives_in_one_piece_and_errors_are_the_kernels(workshop: Workshop, tmp_path: Path) -> None:
    workers = Workers(workshop)
    (tmp_path / "driver_override").write_text("a longer text")
    await kernel(workers).write(str(tmp_path / "driver_override"), "vfio-pci\n")
    assert await kernel(workers).read_locked(str(tmp_path / "driver_override")) == "vfio-pci\ntext"
    with pytest.raises(FileNotFoundError):
        await kernel(workers).write(str(tmp_path / "gone"), "x")
    with pytest.raises(OSError) as caught:  # noqa: PT011  (which one is the next line's matter)
        await kernel(workers).write("/sys/kernel/notes" if os.geteuid() else "/proc/self/task", "x")
    assert caught.value.errno in {errno.EACCES, errno.EISDIR}
    with pytest.raises(ValueError, match="would do nothing"):
        await kernel(workers).write(str(tmp_path / "driver_override"), "")
    workers.close()


async def test_one_worker_serves_one_operation_after_the_other(workshop: Workshop, tmp_path: Path) -> None:
    workers = Workers(workshop)
    (tmp_path / "x").touch()
    for _ in range(50):
        await kernel(workers).write(str(tmp_path / "x"), "1")
    assert len(workers._idle) == 1
    workers.close()


async def test_an_overdue_operation_is_told_with_its_process_and_left_behind(workshop: Workshop, pipe: Path) -> None:
    workers = Workers(workshop)
    error = await hang(workers, pipe)
    assert (error.seconds, error.state) == (OVERDUE, "S")
    assert comm(error.process) == f"{NAME}c"
    (pending,) = workers.pending(CARD)
    assert (pending.process, pending.purpose) == (error.process, CARD)
    assert drain(pipe) == "0000:01:00.1"
    await asyncio.wait_for(workers.settled(CARD.gpu), PATIENCE)
    assert workers.pending(CARD) == ()
    workers.close()


async def test_nothing_is_begun_behind_it_in_its_lane(workshop: Workshop, pipe: Path, tmp_path: Path) -> None:
    workers = Workers(workshop)
    error = await hang(workers, pipe)
    (tmp_path / "x").touch()
    with pytest.raises(OverdueError) as caught:
        await kernel(workers).write(str(tmp_path / "x"), "1")
    assert caught.value.process == error.process
    for other in (Purpose(CARD.gpu, "ch"), Purpose("0000:02:00.0", "c"), Purpose()):
        await kernel(workers, other).write(str(tmp_path / "x"), "1")
    assert drain(pipe)
    await asyncio.wait_for(workers.settled(CARD.gpu), PATIENCE)
    await kernel(workers).write(str(tmp_path / "x"), "2")
    assert (tmp_path / "x").read_text() == "2"
    workers.close()


async def test_a_cancelled_caller_waits_for_the_kernel(workshop: Workshop, pipe: Path) -> None:
    workers = Workers(workshop)
    task = asyncio.create_task(kernel(workers).write(str(pipe), "x", deadline=PATIENCE))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    assert await asyncio.to_thread(drain, pipe) == "x"
    with pytest.raises(asyncio.CancelledError):
        await task
    workers.close()


async def test_a_caller_that_is_cancelled_again_waits_all_the_same(workshop: Workshop, pipe: Path) -> None:
    """The job's time is over, and then the person cancels: nothing is undone under an operation that still runs."""
    workers = Workers(workshop)

    async def write() -> None:
        async with asyncio.timeout(0.1):
            await kernel(workers).write(str(pipe), "0000:01:00.1", deadline=PATIENCE)

    writing = asyncio.create_task(write())
    for _ in range(3):
        await asyncio.sleep(0.2)
        writing.cancel()
    await asyncio.sleep(0.2)
    assert not writing.done()
    assert await asyncio.to_thread(drain, pipe) == "0000:01:00.1"
    with pytest.raises((TimeoutError, asyncio.CancelledError)):
        await writing
    workers.close()


async def test_the_next_daemon_adopts_what_the_last_one_left_hanging(workshop: Workshop, pipe: Path) -> None:
    killed, successor = Workers(workshop), Workers(workshop)
    error = await hang(killed, pipe)
    await successor.adopt(MachineProcesses())
    (pending,) = successor.pending(CARD)
    assert (pending.process, pending.purpose) == (error.process, CARD)
    assert [one.process for one in successor.pending(Purpose(CARD.gpu))] == [error.process]
    for other in (Purpose(CARD.gpu, "ch"), Purpose("0000:02:00.0", "c")):
        assert successor.pending(other) == ()
    with pytest.raises(OverdueError):
        await kernel(successor).write("/dev/null", "x")
    assert drain(pipe)
    await asyncio.wait_for(killed.settled(CARD.gpu), PATIENCE)
    killed.close()
    await asyncio.wait_for(successor.settled(CARD.gpu), PATIENCE)
    assert successor.pending(CARD) == ()
    successor.close()


@pytest.fixture
def impostor() -> Iterator[int]:
    """A process of another user that is named like a GPU."""
    script = f"open('/proc/self/comm', 'w').write('{NAME}'); import os; os.getuid() or os.setuid(65534); print(); input()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate(b"\n", PATIENCE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users' processes")
async def test_others_that_are_named_like_a_gpu_are_not_taken_for_workers(workshop: Workshop, impostor: int) -> None:
    assert comm(impostor) == NAME
    workers = Workers(workshop)
    await workers.adopt(MachineProcesses())
    assert workers.pending(CARD) == ()
    workers.close()


async def test_a_worker_that_dies_is_an_error_not_a_hang(workshop: Workshop, pipe: Path) -> None:
    workers = Workers(workshop)
    task = asyncio.create_task(kernel(workers).write(str(pipe), "x", deadline=PATIENCE))
    worker = None
    while worker is None:
        await asyncio.sleep(0.02)
        found = [one for one in psutil.Process().children(recursive=True) if one.name() == CARD.name]
        worker = found[0] if found else None
    worker.kill()
    with pytest.raises(OSError, match="died"):
        await task
    workers.close()


async def test_the_first_bytes_of_a_file(workshop: Workshop, tmp_path: Path) -> None:
    workers = Workers(workshop)
    (tmp_path / "config").write_bytes(b"\xde\x10\x86\x27\xff\xff")
    assert await kernel(workers).read_head(str(tmp_path / "config"), 4) == b"\xde\x10\x86\x27"
    with pytest.raises(FileNotFoundError):
        await kernel(workers).read_head(str(tmp_path / "absent"), 4)
    workers.close()


def test_a_worker_that_cannot_be_made_is_said_and_the_next_one_works() -> None:
    """Too many processes, or no memory, for a moment; the workshop goes on."""
    program = """
import asyncio, errno, os
real, made = os.fork, []
def fork():
    made.append(1)
    if len(made) == 2:
        raise OSError(errno.EAGAIN, "")
    return real()
os.fork = fork
from gpuhandoff.workshop import Workshop
shop = Workshop.start()
from gpuhandoff.host.door import Purpose
from gpuhandoff.host.workers import Workers
async def main():
    workers = Workers(shop)
    for _ in range(2):
        try:
            found = await workers.do("reading", 20, Purpose(), what="read", path="/proc/uptime")
            print(len(found.split()))
        except OSError as error:
            print(errno.errorcode[error.errno], error.strerror)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stderr == ""
    assert done.stdout == "ENOMEM no process can be made for it; there is too little memory, or too many processes\n2\n"
