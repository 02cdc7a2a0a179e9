"""Runs inside the test host: prints how long Status takes to answer, in seconds: the median of some calls of one client."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from dbus_next.aio import MessageBus
from dbus_next.constants import BusType, MessageType
from dbus_next.message import Message

NAME, PATH = "org.gpuhandoff.Manager", "/org/gpuhandoff/Manager"


async def main(calls: int) -> None:
    """Call one after the other; the first one, for which the bus asks polkit who we are, does not count."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    took = []
    for _ in range(calls + 1):
        start = time.monotonic()
        reply = await bus.call(Message(destination=NAME, path=PATH, interface=NAME, member="Status"))
        took.append(time.monotonic() - start)
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            raise RuntimeError(str(reply and reply.body))
    print(statistics.median(took[1:]))  # noqa: T201


asyncio.run(main(int(sys.argv[1])))
