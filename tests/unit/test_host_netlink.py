"""The kernel's device events, as they come from this very kernel, and what is told of those that it had no room for."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from gpuhandoff.host.door import Uevent
from gpuhandoff.host.netlink import OVERFLOW, MachineUevents

DEVICE = "devices/virtual/mem/null"


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


async def test_an_overflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Monitor:
        """Has had no room, and then nothing more."""

        def __init__(self) -> None:
            self.answers = [OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), None]

        def poll(self, timeout: float) -> None:
            assert timeout == 0
            answer = self.answers.pop(0)
            if answer is not None:
                raise answer

    events = MachineUevents()
    seen: list[Uevent] = []
    events.subscribe(seen.append)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(events, "_monitor", Monitor())
            events._read()
    finally:
        events.close()
    assert seen == [OVERFLOW]
