"""The kernel's device events: as they come from this very kernel, and as they may look."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

from gpuhandoff.host.door import Uevent
from gpuhandoff.host.netlink import OVERFLOW, MachineUevents, parse

DEVICE = "devices/virtual/mem/null"
BIND = (
    b"bind@/devices/pci0000:00/0000:00:01.0/0000:01:00.0\0ACTION=bind\0DEVPATH=/devices/pci0000:00/0000:00:01.0/0000:01:00.0\0"
    b"SUBSYSTEM=pci\0DRIVER=vfio-pci\0PCI_CLASS=30000\0MODALIAS=pci:v=odd\0SEQNUM=4711\0"
)


def test_what_an_event_says() -> None:
    path = "/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0"
    assert parse(BIND) == Uevent("bind", path, "pci", "vfio-pci")
    assert parse(b"add@/module/vfio\0ACTION=add\0") == Uevent("add", "/sys/module/vfio", "")


def test_what_is_no_event() -> None:
    assert parse(b"") is None
    assert parse(b"libudev\0\xfe\xed\xca\xfe") is None
    assert parse(b"add@nowhere\0SUBSYSTEM=pci\0") is None
    assert parse(b"\xff\xfe@/\xff\0DRIVER\0") == Uevent("\ufffd\ufffd", "/sys/\ufffd", "")


def change() -> None:
    """Have the kernel send an event; root may."""
    Path(f"/sys/{DEVICE}/uevent").write_text("change")


async def test_events_of_this_kernel() -> None:
    events, first = MachineUevents(), asyncio.Event()
    seen: list[Uevent] = []

    def see(event: Uevent) -> None:
        if event.path == f"/sys/{DEVICE}":
            seen.append(event)
            first.set()

    unsubscribe = events.subscribe(see)
    try:
        change()
        async with asyncio.timeout(60):
            await first.wait()
        assert seen == [Uevent("change", f"/sys/{DEVICE}", "mem")]
        unsubscribe()
        unsubscribe()
        others = asyncio.Event()
        events.subscribe(lambda _: others.set())
        change()
        async with asyncio.timeout(60):
            await others.wait()
        assert len(seen) == 1
    finally:
        events.close()


async def test_another_process_is_not_the_kernel_and_an_overflow_is_told() -> None:
    class Socket:
        """Gives answers in turn."""

        def __init__(self) -> None:
            self.answers: list[OSError | tuple[bytes, tuple[int, int]]] = [
                (BIND, (os.getpid(), 1)),
                OSError(errno.ENOBUFS, "no room"),
                (b"nonsense", (0, 1)),
                (BIND, (0, 1)),
            ]

        def recvfrom(self, _size: int) -> tuple[bytes, tuple[int, int]]:
            if not self.answers:
                raise BlockingIOError
            answer = self.answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer

    events = MachineUevents()
    seen: list[Uevent] = []
    events.subscribe(seen.append)
    events.close()
    fake = Socket()
    events._read(fake)  # type: ignore[arg-type]
    assert [event.action for event in seen] == [OVERFLOW.action, "bind"]
    assert fake.answers == []
