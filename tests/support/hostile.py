"""What an unprivileged user may try against the daemon: `python -m tests.support.hostile ADDRESS ATTACK N`.

Every attack sends about N messages and ends by itself. None of them cares for what is answered.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
import sys
from collections.abc import Callable, Iterator

from dbus_next import Message, MessageFlag, Variant

from gpuhandoff.names import BUS_NAME, JOB_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH, ROOT_PATH
from tests.support.stranger import Stranger

GPU = "0000:01:00.0"
DBUS = "org.freedesktop.DBus"
WINDOW = 60
"""Calls on the way; the bus allows 128."""
LARGE = 31 << 20
"""Bytes; the bus carries up to 32 MiB."""


def call(
    member: str, signature: str = "", *body: object, interface: str = MANAGER_INTERFACE, path: str = MANAGER_PATH
) -> Message:
    return Message(BUS_NAME, path, interface, member, signature=signature, body=list(body))


def anything() -> Message:
    """Return a call of some method with some arguments."""
    text = random.choice(["", GPU, "x", "../../etc/passwd", "\x1b[2J", "ä" * 300, "0000:ff:1f.7", "x" * 10_000])
    dry = {"dry-run": Variant("b", True)}
    return random.choice(
        [
            call("Status"),
            call("Plan", "ssa{sv}", text, "handoff", {}),
            call("Holders", "s", text),
            call("History", "su", text, 5),
            call("Handoff", "sa{sv}", text, {**dry, text: Variant("s", text)}),
            call("Reclaim", "sa{sv}", text, dry),
            call("Uninhibit", "u", 7),
            call("M" + text[:50].encode().hex(), "s", text),
            call("GetManagedObjects", interface=f"{DBUS}.ObjectManager", path=ROOT_PATH),
            call("GetAll", "s", text, interface=f"{DBUS}.Properties"),
            call("Set", "ssv", MANAGER_INTERFACE, "Busy", Variant("b", True), interface=f"{DBUS}.Properties"),
            call("Introspect", interface=f"{DBUS}.Introspectable"),
            call("Cancel", interface=JOB_INTERFACE, path="/org/gpuhandoff/jobs/1"),
            call("Status", "u", 1),
            call("Event", "sssss", "", "", "", "", "", interface="org.gpuhandoff.Hypervisor"),
        ]
    )


def flood(address: str, count: int) -> None:
    """Calls, as many as fit on the way."""
    pour(address, count, anything)


def pour(address: str, count: int, make: Callable[[], Message]) -> None:
    with Stranger(address) as stranger:
        stranger.socket.settimeout(120)
        for sent in range(count):
            stranger.send(make())
            if sent % WINDOW == WINDOW - 1:
                stranger.replies(WINDOW)
        stranger.replies(count % WINDOW)


def unanswered(address: str, count: int) -> None:
    """Calls that expect no reply, and signals: nothing in the bus limits them."""
    with Stranger(address) as stranger:
        stranger.socket.settimeout(120)
        message = call("Status")
        message.flags, message.serial = MessageFlag.NO_REPLY_EXPECTED, 5
        data = bytes(message._marshall())  # type: ignore[no-untyped-call]
        for _ in range(count // 100):
            stranger.socket.sendall(data * 100)
        stranger.call(DBUS, "/", DBUS, "GetId")


def half_written(address: str, count: int) -> None:
    """Messages of which the second half never comes."""
    whole = marshalled(call("Holders", "s", "x" * 5000))
    each(address, count, lambda stranger: stranger.socket.sendall(whole[: random.randrange(1, len(whole))]))


def wrong_signatures(address: str, count: int) -> None:
    """Bodies that are not what their header says."""
    data = marshalled(call("Holders", "s", GPU))
    for signature in (b"u", b"v", b"a", b"(", b"{"):
        spoiled = data.replace(b"\1s\0", b"\1" + signature + b"\0")
        each(address, count // 5, lambda stranger, what=spoiled: stranger.socket.sendall(what))  # type: ignore[misc]


def bad_strings(address: str, count: int) -> None:
    """NUL and what is no UTF-8 inside strings and names."""
    data = marshalled(call("Holders", "s", "0000:01:00.0"))
    for piece in (b"00\0:01", b"\xff\xfe00", b"\xed\xa0\x80:0"):
        spoiled = data.replace(b"0000:0", piece)
        each(address, count // 3, lambda stranger, what=spoiled: stranger.socket.sendall(what))  # type: ignore[misc]


def deep_variants(address: str, count: int) -> None:
    """Variants in variants, as deep as the bus allows, and of ever new types, all of which dbus-next remembers."""
    deep = Variant("s", "bottom")
    for _ in range(30):
        deep = Variant("v", deep)

    def make() -> Message:
        types = "".join(random.choices("ybnqiuxtdsog", k=120))
        strange = [Variant(f"a({types[:length]})", []) for length in range(60, 120, 3)]
        return call("Plan", "ssa{sv}", GPU, "handoff", {"vm": deep, "x": Variant("av", strange)})

    pour(address, count, make)


def large_arrays(address: str, count: int) -> None:
    """One that announces 128 MB, which the bus refuses, and large ones that it lets through."""
    data = bytearray(marshalled(call("Status", "ay", b"xxxx")))
    struct.pack_into("<I", data, 4, 128 << 20)
    each(address, 2, lambda stranger: stranger.socket.sendall(data + bytes(1 << 20)))
    large = marshalled(call("Status", "ay", bytes(LARGE)))
    text = marshalled(call("Holders", "s", "x" * LARGE))
    with Stranger(address) as stranger:
        stranger.socket.settimeout(120)
        for number in range(min(count, 12)):
            stranger.socket.sendall(text if number % 3 else large)
            stranger.replies(1)


def descriptors(address: str, count: int) -> None:
    """Descriptors that nobody has asked for."""
    null = os.open(os.devnull, os.O_RDONLY)
    with Stranger(address, descriptors=True) as stranger:
        for _ in range(count):
            stranger.send(call("Holders", "h", 0), [null])
            stranger.replies(1)


def inhibitors(address: str, count: int) -> None:
    """More inhibitors than anybody needs, by many callers."""
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Stranger(address)) for _ in range(40)]
        for number in range(count):
            caller = callers[number % len(callers)]
            caller.send(call("Inhibit", "sss", "who", "why", "delay"))
            caller.replies(1)


def jobs(address: str, count: int) -> None:
    """Jobs that end at once, each of them an object for a minute."""
    given = {"wait": Variant("b", False), "dry-run": Variant("b", True), "lease": Variant("b", True)}
    pour(address, count, lambda: call("Handoff", "sa{sv}", GPU, given))


def vanish(address: str, count: int) -> None:
    """Callers that are gone before they are answered."""
    made = [
        call("Inhibit", "sss", "who", "why", "delay"),
        call("Handoff", "sa{sv}", GPU, {"lease": Variant("b", True), "dry-run": Variant("b", True)}),
        call("Report", "a{sv}", {}),
    ]
    each(address, count, lambda stranger: stranger.send(random.choice(made)))


def never_read(address: str, count: int) -> None:
    """Callers that send and send, and read nothing."""
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Stranger(address)) for _ in range(40)]
        large = call("GetManagedObjects", interface=f"{DBUS}.ObjectManager", path=ROOT_PATH)
        for number in range(count):
            with contextlib.suppress(TimeoutError):
                callers[number % 40].socket.settimeout(0.5)
                callers[number % 40].send(large)


def each(address: str, count: int, act: Callable[[Stranger], object]) -> None:
    """Act on a connection of its own, `count` times."""
    for _ in range(count):
        with contextlib.suppress(OSError, EOFError), Stranger(address) as stranger:
            act(stranger)


def marshalled(message: Message) -> bytes:
    message.serial = 77
    return bytes(message._marshall())  # type: ignore[no-untyped-call]


ATTACKS = {
    one.__name__: one
    for one in (
        flood, unanswered, half_written, wrong_signatures, bad_strings, deep_variants, large_arrays, descriptors, inhibitors,
        jobs, vanish, never_read,
    )
}  # fmt: skip


def parts(total: int) -> Iterator[tuple[str, int]]:
    """Share `total` messages out: what needs a connection of its own, or is large, gets fewer."""
    costly = {"half_written": 50, "wrong_signatures": 50, "bad_strings": 50, "vanish": 30, "never_read": 20}
    costly |= {"deep_variants": 50, "large_arrays": 5000, "descriptors": 20, "inhibitors": 20, "jobs": 20}
    rest = total
    for name, part in costly.items():
        rest -= total // part
        yield name, max(total // part, 6)
    yield "unanswered", rest // 2
    yield "flood", rest - rest // 2


if __name__ == "__main__":
    ATTACKS[sys.argv[2]](sys.argv[1], int(sys.argv[3]))
