"""Who has which device nodes, from /proc: descriptors and dma-bufs here, mappings in `mappings`.

Runs in a thread beside the event loop. A descriptor is told by the text of its link, so that nothing it leads to can block;
only what lies in some /dev under another name is looked at by its number, as in a container that has made its own nodes.
That may be somebody's file in ~/dev on a server that is gone: the kernel is asked for what it knows, and nobody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections import deque
from collections.abc import Collection, Iterator, Mapping

from gpuhandoff.host.mappings import DELETED, MappingScan
from gpuhandoff.host.threads import others

DMA_BUF = "dmabuf:"
"""Begins the name of a kind of dma-bufs, `dmabuf:amdgpu`: by who exports them. They pin its module (kernel.md 8)."""
OPEN, MAPPED, SHARED = "open", "mapped", "dma-buf"
_libc = ctypes.CDLL(None)
_DO_NOT_SYNC, _TYPE = 0x4000, 0x1
"""AT_STATX_DONT_SYNC, STATX_TYPE."""
_STATX_SIZE, _STATX_NUMBER, _STATX_NUMBER_AT = 256, struct.Struct("=II"), 128
"""struct statx (linux/stat.h), stx_rdev_major and stx_rdev_minor in it."""
Found = list[tuple[int, dict[str, list[str]]]]
"""Process ids, each with nodes and the ways in which they are held."""

_DMA_BUF_LINKS = ("/dmabuf:", "anon_inode:dmabuf", "anon_inode:[dmabuf]")
_HARMLESS = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx"})


def scan(nodes: Collection[str], *, mappings: bool = True) -> Found:
    """Return who has any of the nodes, lowest process id first. Mappings cost half as much again as descriptors do."""
    wanted = frozenset(nodes)
    numbers = _numbers(wanted)
    buffers = {name for name in wanted if name.startswith(DMA_BUF)}
    pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    left = deque(pids)
    found: dict[str, dict[str, list[str]]] = {}

    def look() -> None:
        for pid in _taken(left):
            held: dict[str, list[str]] = {}
            if not _descriptors(f"/proc/{pid}", wanted, numbers, buffers, held):
                for thread in others(pid):
                    _descriptors(thread, wanted, numbers, buffers, held)
            if held:
                found[pid] = held

    beside = MappingScan(pids, wanted, afterwards=look) if mappings else None
    look()
    for pid, node in beside.found() if beside is not None else ():
        _note(found.setdefault(pid, {}), node, MAPPED)
    return sorted((int(pid), held) for pid, held in found.items())


def _taken(left: deque[str]) -> Iterator[str]:
    """Yield what no other thread has taken."""
    with contextlib.suppress(IndexError):
        while True:
            yield left.popleft()


def _numbers(nodes: Collection[str]) -> Mapping[int, str]:
    """Return the nodes by their device numbers."""
    found = {}
    for node in nodes:
        if node.startswith("/"):
            with contextlib.suppress(OSError):
                found[os.stat(node).st_rdev] = node
    found.pop(0, None)
    return found


def _descriptors(
    whose: str, nodes: frozenset[str], numbers: Mapping[int, str], buffers: Collection[str], held: dict[str, list[str]]
) -> bool:
    """Note what a process or thread, by its directory in /proc, has open; tell whether it has anything at all open."""
    path = f"{whose}/fd"
    try:
        names = os.listdir(path)
        if not names:  # the kernel's own threads, half of all on an idle machine, and a first thread that has ended
            return False
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    readlink = os.readlink  # looked up sixty thousand times otherwise
    try:
        for name in names:
            try:
                text = readlink(name, dir_fd=directory)
            except OSError:
                continue
            if "/dev/" in text:
                node = _node(name, directory, text, nodes, numbers)
            elif buffers and text.startswith(_DMA_BUF_LINKS):
                node = _buffer(whose, name, buffers)
            else:
                continue
            if node:
                _note(held, node, SHARED if node in buffers else OPEN)
    except OSError:
        pass  # gone meanwhile
    finally:
        os.close(directory)
    return True


def _node(name: str, directory: int, text: str, nodes: frozenset[str], numbers: Mapping[int, str]) -> str:
    """Return which of the nodes a link in some /dev leads to. Node names vanish before their holders (kernel.md 1.4).

    The name alone proves nothing: in a mount namespace of their own anybody has a /dev.
    """
    path = text.removesuffix(DELETED)
    if path in nodes:
        number = _number(name, directory)
        if path != text or path not in numbers.values():  # the node is gone, or is another one by now
            return path if number else ""
        return numbers.get(number, "")
    if path in _HARMLESS or path.startswith("/dev/pts/") or not path.startswith("/"):
        return ""
    return numbers.get(_number(name, directory), "")


def _number(name: str, directory: int) -> int:
    """Return a device's number, 0 of what is none or gone. os.stat would wait for a network's or a FUSE file's server."""
    found = ctypes.create_string_buffer(_STATX_SIZE)
    if _libc.statx(directory, os.fsencode(name), _DO_NOT_SYNC, _TYPE, found) != 0:
        return 0
    return os.makedev(*_STATX_NUMBER.unpack_from(found, _STATX_NUMBER_AT))


def _buffer(whose: str, name: str, buffers: Collection[str]) -> str:
    """Return which kind of dma-buf a descriptor is, of those asked for."""
    with contextlib.suppress(OSError), open(f"{whose}/fdinfo/{name}", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == "exp_name" and f"{DMA_BUF}{value.strip()}" in buffers:
                return f"{DMA_BUF}{value.strip()}"
    return ""


def _note(held: dict[str, list[str]], node: str, way: str) -> None:
    ways = held.setdefault(node, [])
    if way not in ways:
        ways.append(way)
