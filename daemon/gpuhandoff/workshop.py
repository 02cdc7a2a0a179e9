"""Children that carry out kernel operations which may block for ever, and that the daemon can leave behind.

A small process, the workshop, is forked from the daemon before anything else is loaded. It forks a worker on demand; a
worker carries out one operation after the other, so an ordinary write costs one message each way and no fork. A worker
that misses its deadline is left behind, never killed: a SIGKILL turns nvidia's endless wait into an endless loop
(kernel.md 1.4). When the daemon goes, idle workers and the workshop see the end of their sockets and go too.

Imports nothing but small modules of the standard library, and is in no room, as a room brings itself along: this is what
the children consist of.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself is half a megabyte
    from typing import Any, NoReturn

LARGEST_MESSAGE = 1 << 16
MOST_DESCRIPTORS = 1024
"""More than a daemon that has just started has open."""
NAME = "gpuhandoffd"
_DELETE_MODULE_FLAGS = os.O_NONBLOCK
_MODULE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:.*-")
LONGEST_MODULE = 256
MODPROBE = ("/usr/sbin/modprobe", "/sbin/modprobe")


class Workshop:
    """The daemon's end of the process that makes workers."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def start(cls) -> Workshop:
        """Fork the workshop. To be called before the event loop and any thread exist."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            _close_all_but(theirs.fileno())
            _make_workers(theirs)
        theirs.close()
        return cls(ours)

    def worker(self) -> socket.socket:
        """Return the socket of a new worker, which sends its pid first. Does not wait for it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self._socket, [b"worker"], [theirs.fileno()])
        theirs.close()
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        """Let the workshop end."""
        self._socket.close()


def _close_all_but(kept: int) -> None:
    """What the service manager kept for the daemon, an inhibitor of sleep, must end when the daemon closes it."""
    os.closerange(3, kept)
    os.closerange(kept + 1, MOST_DESCRIPTORS)


def _make_workers(sock: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: the kernel reaps them
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end comes through the socket, after the daemon has rolled back
    while True:
        _, descriptors, _, _ = socket.recv_fds(sock, 16, 1)
        if not descriptors:
            os._exit(0)
        try:
            child = os.fork()
        except OSError:  # no memory, or too many processes: the daemon sees the end of its socket
            child = -1
        if child == 0:
            sock.close()
            _work(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _work(sock: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sock.send(str(os.getpid()).encode())
    shown = ""
    while True:
        data = sock.recv(LARGEST_MESSAGE)
        if not data:
            os._exit(0)
        try:
            request = json.loads(data)
            name = request.pop("name")
            if name != shown:
                _show(name or NAME)
                shown = name
            answer = {"value": _carry_out(**request)}
        except OSError as error:
            answer = {"errno": error.errno or errno.EIO, "text": error.strerror or str(error)}
        except Exception as error:  # noqa: BLE001  (told to the daemon, which raises it)
            answer = {"errno": errno.EIO, "text": f"{type(error).__name__}: {error}"}
        try:
            sock.send(json.dumps(answer).encode()[:LARGEST_MESSAGE])
        except OSError:
            os._exit(0)


def _show(name: str) -> None:
    """Be named after the GPU and the lane that this is for: a daemon that is started meanwhile sees it (`Workers.adopt`)."""
    with contextlib.suppress(OSError):
        _write("/proc/self/comm", name)


def _carry_out(what: str, path: str = "", text: str = "") -> Any:
    match what:
        case "write":
            return _write(path, text)
        case "read":
            return _read(path)
        case "head":
            return _head(path, int(text))
        case "load":
            return _load(path)
        case "remove":
            return _remove(path)
        case "sync":
            return os.sync()
    raise OSError(errno.EINVAL, f"unknown operation {what}")


def _write(path: str, text: str) -> None:
    """One write(2), never creating nor truncating: attributes take what one write brings."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    finally:
        os.close(descriptor)


def _check_module(name: str) -> None:
    """Raise OSError for what is neither a module's name nor an alias as sysfs has them (`pci:v000010DEd…`)."""
    if not 0 < len(name) <= LONGEST_MODULE or name[0] == "-" or not _MODULE.issuperset(name):
        raise OSError(errno.EINVAL, "this is not the name of a module")


def _head(path: str, count: int) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, count).hex()
    finally:
        os.close(descriptor)


def _remove(name: str) -> None:
    _check_module(name)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.delete_module(name.encode(), _DELETE_MODULE_FLAGS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _load(name: str) -> None:
    """Run modprobe, which knows dependencies, options and aliases."""
    _check_module(name)
    program = next((path for path in MODPROBE if os.path.exists(path)), None)
    if program is None:
        raise OSError(errno.ENOENT, "modprobe is not installed")
    reader, writer = os.pipe()
    child = os.posix_spawn(
        program,
        [program, "--", name],
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2), (os.POSIX_SPAWN_CLOSE, reader)],
    )
    os.close(writer)
    said = os.read(reader, 4096).decode(errors="replace").strip()
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise OSError(errno.ENOENT if "not found in directory" in said else errno.EIO, said or f"modprobe failed ({status})")
