"""Who has what, on this very kernel: descriptors, duplicates, mappings, names of one's own, processes that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpuhandoff.host import mappings
from gpuhandoff.host import scan as scan_module
from gpuhandoff.host.proc import MachineProcesses
from gpuhandoff.host.scan import DMA_BUF, MAPPED, OPEN, Found, _buffer, scan

FULL, ZERO = "/dev/full", "/dev/zero"
AT_STATX_DONT_SYNC = 0x4000
HOLD = "import sys; {}; print('ready', flush=True); sys.stdin.read()"
OPENS = "import os; os.open('/dev/full', os.O_RDONLY)"
BOTH = (
    "import ctypes, os; d = os.open('/dev/zero', os.O_RDWR); "
    "ctypes.CDLL(None).mmap(None, ctypes.c_size_t(4096), 3, 1, d, ctypes.c_long(0))"
)
"""Not Python's own mmap, which keeps a descriptor."""
MAPS = f"{BOTH}; os.close(d)"


@contextmanager
def holder(does: str, *inside: str) -> Iterator[int]:
    """Yield the pid of a process that holds something."""
    process = subprocess.Popen(
        [*inside, sys.executable, "-c", HOLD.format(does)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def of(pid: int, found: Found) -> dict[str, list[str]]:
    """Return what a process holds."""
    return dict(found).get(pid, {})


def test_a_descriptor_and_a_mapping_and_both() -> None:
    with holder(OPENS) as opened, holder(MAPS) as mapped, holder(BOTH) as both:
        found = scan([FULL, ZERO])
        assert of(opened, found) == {FULL: [OPEN]}
        assert of(mapped, found) == {ZERO: [MAPPED]}
        assert of(both, found) == {ZERO: [OPEN, MAPPED]}
        assert of(opened, scan([ZERO])) == {}
        quick = scan([FULL, ZERO], mappings=False)
        assert (of(opened, quick), of(mapped, quick), of(both, quick)) == ({FULL: [OPEN]}, {}, {ZERO: [OPEN]})


def test_a_node_of_ones_own_is_told_by_its_number(tmp_path: Path) -> None:
    own = tmp_path / "dev" / "card"
    own.parent.mkdir()
    try:
        os.mknod(own, 0o600 | stat.S_IFCHR, os.stat(FULL).st_rdev)
        os.close(os.open(own, os.O_RDONLY))
    except PermissionError:
        pytest.fail("this test needs to be root, and a file system with device nodes below the temporary directory")
    with holder(f"import os; os.open({str(own)!r}, os.O_RDONLY)") as pid:
        assert of(pid, scan([FULL])) == {FULL: [OPEN]}
        own.unlink()
        assert of(pid, scan([FULL])) == {FULL: [OPEN]}


OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")
PRETENDS = (
    "import os, subprocess; subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '/dev'], check=True); "
    "d = os.open('/dev/full', os.O_RDONLY | os.O_CREAT)"
)


def test_who_has_another_dev_pretends_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is the node's, and that is all: whoever may not open a card may not keep others from it either."""
    with holder(PRETENDS, *OWN_MOUNTS) as pid:
        assert FULL in {os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()}
        assert of(pid, scan([FULL], mappings=False)) == {}
        monkeypatch.setattr(scan_module, "_numbers", lambda _: {})  # the node has gone meanwhile
        assert of(pid, scan([FULL], mappings=False)) == {}


def test_a_file_beside_the_nodes_is_none_of_them(tmp_path: Path) -> None:
    file = tmp_path / "dev" / "full"
    file.parent.mkdir()
    file.touch()
    with holder(f"import os; os.open({str(file)!r}, os.O_RDONLY)") as pid:
        assert of(pid, scan([FULL])) == {}
        other = tmp_path / "other"
        other.touch()
        assert of(pid, scan([str(other)])) == {}  # both have no number, which makes them not the same


def test_nobody_is_asked_about_other_peoples_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/dev may lie on a server that is gone: os.stat would wait for it, and with it everybody who asks who has a card."""
    file = tmp_path / "dev" / "notes"
    file.parent.mkdir()
    file.touch()
    flags: list[int] = []
    statx = scan_module._libc.statx

    def note(directory: int, name: bytes, given: int, mask: int, found: object) -> int:
        flags.append(given)
        return int(statx(directory, name, given, mask, found))

    real = os.stat

    def waits(path: str, *, dir_fd: int | None = None) -> os.stat_result:
        assert dir_fd is None, f"os.stat has asked about {path}"
        return real(path)

    monkeypatch.setattr(scan_module, "_libc", SimpleNamespace(statx=note))
    monkeypatch.setattr(os, "stat", waits)
    with holder(f"import os; os.open({str(file)!r}, os.O_RDONLY)") as pid:
        assert of(pid, scan([FULL])) == {}
    assert set(flags) == {AT_STATX_DONT_SYNC}


def test_a_dma_buf_is_told_by_who_exported_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: str, **_: str) -> object:
        assert path == "/proc/1/fdinfo/7"
        return contextlib.nullcontext(["pos:\t0\n", "size:\t4096\n", "exp_name:\tdrm\n"])

    monkeypatch.setattr("builtins.open", opened)
    assert _buffer("/proc/1", "7", {f"{DMA_BUF}drm"}) == f"{DMA_BUF}drm"
    assert _buffer("/proc/1", "7", {f"{DMA_BUF}nvidia"}) == ""


def test_the_processes_door_says_how_each_holds_what() -> None:
    async def main() -> None:
        ways = {one.process.pid: one.ways for one in await MachineProcesses().holding([FULL, ZERO])}
        assert (ways[opened], ways[mapped], ways[both]) == ((OPEN,), (MAPPED,), (MAPPED, OPEN))

    with holder(OPENS) as opened, holder(MAPS) as mapped, holder(BOTH) as both:
        asyncio.run(main())


def test_a_mapping_of_what_has_been_deleted_meanwhile() -> None:
    file = Path("/dev/shm") / f"gpuhandoff-test-{os.getpid()}"
    file.write_bytes(bytes(4096))
    does = f"import mmap; f = open({str(file)!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close()"
    try:
        with holder(does) as pid:
            file.unlink()
            assert MAPPED in of(pid, scan([str(file)]))[str(file)]
    finally:
        file.unlink(missing_ok=True)


def mapped_by(pid: int) -> set[str]:
    """Return what a process has mapped of the two."""
    return mappings.mapped(str(pid), [FULL, ZERO], mappings.Question())


def test_an_older_kernel_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with holder(MAPS) as mapped, holder(BOTH) as both:
        assert mapped_by(mapped) == {ZERO}
        asked: list[int] = []

        def too_old(descriptor: int, request: int, *_: object) -> None:
            asked.append(request)
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

        monkeypatch.setattr(fcntl, "ioctl", too_old)
        assert mapped_by(mapped) == {ZERO}
        assert mapped_by(both) == {ZERO}
        assert mapped_by(os.getpid()) == set()
        assert set(asked) == {0xC0686611}, "PROCMAP_QUERY"
        monkeypatch.undo()
    assert mapped_by(mapped) == set()


def test_a_process_that_hangs_keeps_nobody_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its mmap lock is taken, and whoever reads its mappings waits for that."""
    ends, real, looks = threading.Event(), mappings.mapped, []

    def waits(pid: str, nodes: Collection[str], question: mappings.Question) -> set[str]:
        looks.append(pid)
        if pid == str(os.getpid()):
            ends.wait()
        return real(pid, nodes, question)

    monkeypatch.setattr(mappings, "mapped", waits)
    monkeypatch.setattr(mappings, "PATIENCE", 0.2)
    with holder(BOTH) as both:
        try:
            assert OPEN in of(both, scan([ZERO]))[ZERO]
            assert f"process {os.getpid()} hangs" in caplog.text
            before = len(looks)
            assert of(both, scan([ZERO])) == {ZERO: [OPEN]}
            assert len(looks) == before, "a second thread hangs there too"
        finally:
            ends.set()
        mappings._hung[0].join()
        monkeypatch.setattr(mappings, "PATIENCE", 60.0)
        assert of(both, scan([ZERO])) == {ZERO: [OPEN, MAPPED]}
