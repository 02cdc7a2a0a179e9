"""`gpuhandoff watch`: what happens, as it happens."""

from __future__ import annotations

import asyncio
import json
import signal

from tests.support.command_daemon import JOB, Command, FakeDaemon
from tests.support.shown import status, watched


async def test_watch(daemon: FakeDaemon, command: Command) -> None:
    lines, ended = await watched(daemon, command)
    assert ended == 0
    assert [line.partition(" ")[2] for line in lines] == [
        "0000:01:00.0 with the host\n",
        "job 1 begins\n",
        "0000:01:00.0 is about to be lent\n",
        "0000:01:00.0 on its way to the guest\n",
        "0000:01:00.0 1/2 bind-vfio apply\n",
        "0000:01:00.0 driver nvidia → none\n",
        "0000:01:00.0 STUCK: ?[2J??31m?Evil\n",
        "job 1 ends: stuck\n",
    ]


async def test_watch_as_json(daemon: FakeDaemon, command: Command) -> None:
    lines, ended = await watched(daemon, command, "--json")
    events = [json.loads(line) for line in lines]
    assert ended == 0
    assert [event["event"] for event in events] == [
        "StateChanged",
        "JobNew",
        "PrepareForHandoff",
        "StateChanged",
        "Progress",
        "DriverChanged",
        "StateChanged",
        "JobRemoved",
    ]
    assert (
        events[4].items() >= {"gpu": "0000:01:00.0", "step": "bind-vfio", "phase": "apply", "index": 1, "count": 2}.items()
    )
    assert events[2]["start"] is True
    assert all(event["time"] > 1e9 for event in events)


async def test_watch_ends_when_nobody_reads(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status()}
    process = await command.start("watch")
    await daemon.until("Status")
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    process.stdout = None
    for _ in range(3):
        daemon.emit("JobNew", JOB)
        await asyncio.sleep(0.05)
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_watch_goes_on_when_the_daemon_goes(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status()}
    process = await command.start("watch")
    assert process.stdout is not None
    await daemon.until("Status")
    await asyncio.sleep(0.1)
    await daemon.bus.close()
    assert (await process.stdout.readline()).endswith(b" gpuhandoffd is gone\n")
    again = await FakeDaemon.start(daemon.address)
    assert (await process.stdout.readline()).endswith(b" gpuhandoffd has started\n")
    again.emit("JobNew", JOB)
    assert (await process.stdout.readline()).endswith(b" job 1 begins\n")
    process.send_signal(signal.SIGTERM)
    assert (await command.finish(process)).status == 0
    await again.close()
