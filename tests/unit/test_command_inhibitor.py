"""The inhibitor of `gpuhandoff inhibit`, while daemons come and go."""

from __future__ import annotations

import asyncio
import io
from typing import Any, cast

from gpuhandoff_command.connection import Connection
from gpuhandoff_command.inhibit import Inhibitor
from gpuhandoff_command.terminal import Terminal


class SlowConnection:
    """Answers only when told to: by then the daemon that was asked for may have come."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers = asyncio.Event()

    async def manager(self, member: str, signature: str, *words: str, timeout: float | None) -> int:
        self.asked.append((member, signature, words, timeout))
        await self.answers.wait()
        return len(self.asked)


async def test_a_daemon_that_comes_because_it_was_asked_is_asked_once() -> None:
    connection, errors = SlowConnection(), io.StringIO()
    terminal = Terminal(as_json=False, out=io.StringIO(), errors=errors)
    inhibitor = Inhibitor(cast("Connection", connection), terminal, "Blender", "a frame", "block")
    inhibitor.on_owner(True)  # while we listened: nothing was asked yet
    taking = asyncio.create_task(inhibitor.take())
    await asyncio.sleep(0)
    inhibitor.on_owner(True)  # the bus has started it for our call
    connection.answers.set()
    await taking
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.asked == [("Inhibit", "sss", ("Blender", "a frame", "block"), None)]
    inhibitor.on_owner(False)
    assert errors.getvalue() == "gpuhandoff: gpuhandoffd is gone: nothing keeps a GPU here until it is back.\n"
    inhibitor.on_owner(True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(connection.asked) == 2
