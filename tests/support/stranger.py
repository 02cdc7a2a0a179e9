"""A caller of the bus that keeps to no rules: a plain socket, any user, any bytes. It blocks; use it in a thread."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from dbus_next import Message, MessageFlag, MessageType
from dbus_next._private.unmarshaller import Unmarshaller

from tests.support.bus import NOBODY, PATIENCE

Result = TypeVar("Result")


class Stranger:
    """One connection. Being root, it connects as `uid`: the bus takes the user from the socket."""

    def __init__(
        self, address: str, *, uid: int | None = None, descriptors: bool = False, claims: int | None = None
    ) -> None:
        wanted = (NOBODY if os.geteuid() == 0 else os.geteuid()) if uid is None else uid
        self.socket = self._connect(address, wanted)
        claim = str(wanted if claims is None else claims)
        self.socket.sendall(b"\0AUTH EXTERNAL " + claim.encode().hex().encode() + b"\r\n")
        self._expect_line(b"OK ")
        if descriptors:
            self.socket.sendall(b"NEGOTIATE_UNIX_FD\r\n")
            self._expect_line(b"AGREE_UNIX_FD")
        self.socket.sendall(b"BEGIN\r\n")
        self._stream = self.socket.makefile("rb")
        self._serial = 0
        bus = "org.freedesktop.DBus"
        self.name = str(self.call(bus, "/org/freedesktop/DBus", bus, "Hello").body[0])

    def _connect(self, address: str, uid: int) -> socket.socket:
        """Return a socket to the bus that belongs to that user."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(PATIENCE)
        _as_user(uid, lambda: connected.connect(address.removeprefix("unix:path=")))
        return connected

    def call(
        self,
        destination: str,
        path: str,
        interface: str | None,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        flags: MessageFlag = MessageFlag.NONE,
    ) -> Message:
        """Call and return the reply, whatever it is."""
        serial = self.send(
            Message(
                destination=destination,
                path=path,
                interface=interface,  # type: ignore[arg-type]  # it may be left out
                member=member,
                signature=signature,
                body=list(body),
                flags=flags,
            )
        )
        while (message := self.receive()).reply_serial != serial:
            pass
        return message

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> int:
        """Send a message and return its serial."""
        message.serial = self.next_serial()
        message.unix_fds = list(descriptors)
        data = message._marshall(negotiate_unix_fd=bool(descriptors))  # type: ignore[no-untyped-call]
        if descriptors:
            sent = self.socket.sendmsg(
                [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
            )
            self.socket.sendall(data[sent:])
        else:
            self.socket.sendall(data)
        return message.serial

    def next_serial(self) -> int:
        """Return an unused serial."""
        self._serial += 1
        return self._serial

    def receive(self) -> Message:
        """Return the next message; raises TimeoutError or EOFError."""
        message: Message | None = Unmarshaller(self._stream).unmarshall()  # type: ignore[no-untyped-call]
        if message is None:
            raise TimeoutError
        return message

    def replies(self, count: int) -> list[Message]:
        """Return the next replies."""
        found: list[Message] = []
        while len(found) < count:
            message = self.receive()
            if message.message_type is not MessageType.SIGNAL:
                found.append(message)
        return found

    def close(self) -> None:
        """Leave."""
        self._stream.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _expect_line(self, start: bytes) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            got = self.socket.recv(1)
            if not got:
                raise EOFError
            line += got
        if not line.startswith(start):
            raise PermissionError(line.decode())


_PERSON = """
import os, socket, sys
path, uid, passed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.seteuid(uid)
connected = socket.socket(socket.AF_UNIX)
connected.connect(path)
socket.send_fds(socket.socket(fileno=passed), [b"x"], [connected.fileno()])
connected.close()
sys.stdin.read()
"""


_CONTAINED = """
import ctypes, os, socket, sys
path, uid, passed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
USER, MOUNT, PID = 0x10000000, 0x00020000, 0x20000000
unshare = ctypes.CDLL(None).unshare
outside, inside = socket.socketpair()
child = os.fork()
if child:
    inside.close()
    assert outside.recv(1) == b"1"
    for kind in ("uid", "gid"):
        with open(f"/proc/{child}/{kind}_map", "w") as file:
            file.write(f"0 {uid} 1")
    outside.send(b"2")
    os.waitpid(child, 0)
else:
    os.setgroups([])
    assert unshare(USER | MOUNT | PID) == 0
    inside.send(b"1")
    inside.recv(1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if first := os.fork():
        os.waitpid(first, 0)
        os._exit(0)
    assert (os.getuid(), os.getpid()) == (0, 1)
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(path)
    socket.send_fds(socket.socket(fileno=passed), [b"x"], [connected.fileno()])
    connected.close()
    sys.stdin.read()
    os._exit(0)
"""


class Person(Stranger):
    """A connection that another process has made, which can be in a session of its own; it lives as long as this."""

    _program = _PERSON

    def __init__(self, address: str, *, uid: int, claims: int | None = None) -> None:
        try:
            super().__init__(address, uid=uid, claims=claims)
        except BaseException:
            self.socket.close()
            self._end()
            raise

    def _connect(self, address: str, uid: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._program, address.removeprefix("unix:path="), str(uid), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
        )
        theirs.close()
        with ours:
            _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        connected = socket.socket(fileno=descriptor)
        connected.settimeout(PATIENCE)
        return connected

    @property
    def pid(self) -> int:
        """The process that the bus and polkit take for the caller."""
        bus = "org.freedesktop.DBus"
        return int(self.call(bus, "/org/freedesktop/DBus", bus, "GetConnectionUnixProcessID", "s", [self.name]).body[0])

    def close(self) -> None:
        """Leave, and end the process."""
        super().close()
        self._end()

    def _end(self) -> None:
        self._process.communicate(timeout=PATIENCE)


class Contained(Person):
    """One who is root, and process 1, in user, mount and pid namespaces of their own, and `uid` outside."""

    _program = _CONTAINED


def _as_user(uid: int, act: Callable[[], Result]) -> Result:
    """Do it with another effective user id: the kernel notes that of the moment of connect()."""
    before = os.geteuid()
    if before == uid:
        return act()
    os.seteuid(uid)
    try:
        return act()
    finally:
        os.seteuid(before)
