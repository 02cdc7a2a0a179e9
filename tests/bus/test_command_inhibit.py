"""`gpuhandoff inhibit`: what it asks for, and that it ends with the command."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gpuhandoff import errors
from tests.bus.test_command_simulated import simulated
from tests.support.bus import PATIENCE
from tests.support.command_daemon import Command, Ended, FakeDaemon, fake_daemon


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with fake_daemon() as running:
        running.answers = {"Inhibit": (7,)}
        yield running


async def test_who_and_why_are_those_of_the_command_unless_they_are_given(daemon: FakeDaemon, command: Command) -> None:
    ended = await command("inhibit", "--", "/bin/sh", "-c", "echo hello; exit 4")
    assert ended == Ended(4, "hello\n", "")
    assert daemon.last("Inhibit").body == ("sh", "sh is running", "block")
    await command("inhibit", "--who", "Blender", "--why", "a frame is rendered", "--mode", "delay", "true")
    assert daemon.last("Inhibit").body == ("Blender", "a frame is rendered", "delay")


async def test_arguments_of_the_command_are_told_to_nobody(daemon: FakeDaemon, command: Command) -> None:
    """A refusal and history have who and why, a support report both: it promises that no arguments are in it."""
    assert (await command("inhibit", "--json", "--", "true", "--password=secret")).status == 0
    assert not any("secret" in str(word) for word in daemon.last("Inhibit").body)


async def test_a_long_reason_is_no_mistake(daemon: FakeDaemon, command: Command) -> None:
    assert (await command("inhibit", "--why", "x" * 1000, "--", "true")).status == 0
    assert len(daemon.last("Inhibit").body[1]) == 200


async def test_nothing_runs_where_it_is_refused(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers["Inhibit"] = errors.LimitsExceededError("One caller may hold 16.")
    ended = await command("inhibit", "echo", "ran")
    assert (ended.status != 0, ended.out, ended.err) == (True, "", "gpuhandoff: One caller may hold 16.\n")
    assert (await command("inhibit", "no-such-program")).status == 127


async def test_as_json(daemon: FakeDaemon, command: Command) -> None:
    documents = (await command("inhibit", "--json", "--", "true")).documents
    assert [one["event"] for one in documents] == ["inhibited", "command"]
    assert (documents[0]["cookie"], documents[1]["status"]) == (7, 0)


async def test_the_next_daemon_is_asked_again(daemon: FakeDaemon, command: Command) -> None:
    """None knows of those that another one had."""
    process = await command.start("inhibit", "--who", "Blender", "--why", "a frame", "sh", "-c", "echo runs; exec sleep 600")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"runs\n"
    assert process.stderr is not None
    said = b""
    await daemon.close()
    successor = await FakeDaemon.start(daemon.address)
    try:
        successor.answers = {"Inhibit": (1,)}
        await successor.until("Inhibit")
        assert successor.last("Inhibit").body == ("Blender", "a frame", "block")
    finally:
        await successor.close()
    third = await FakeDaemon.start(daemon.address)
    third.answers["Inhibit"] = errors.LimitsExceededError("One caller may hold 16.")
    await third.until("Inhibit")
    while not (told := await asyncio.wait_for(process.stderr.readline(), PATIENCE)).endswith(b"may hold 16.\n"):
        said += told
    process.send_signal(signal.SIGTERM)
    ended = await command.finish(process)
    await third.close()
    assert (ended.status, ended.err) == (128 + signal.SIGTERM, "")
    assert told == b"gpuhandoff: nothing keeps a GPU here any more: One caller may hold 16.\n"
    assert said == b"gpuhandoff: gpuhandoffd is gone: nothing keeps a GPU here until it is back.\n" * 2


async def test_a_handoff_that_waits_says_so() -> None:
    async with simulated("igpu-dgpu") as command:
        assert '"wait"' not in (await command("handoff", "01:00.0", "--json")).out
        assert (await command("reclaim", "01:00.0")).status == 0
        holding = await command.start("inhibit", "--mode", "delay", "--", "sh", "-c", "echo runs; exec sleep 600")
        assert holding.stdout is not None
        assert await asyncio.wait_for(holding.stdout.readline(), PATIENCE) == b"runs\n"
        lent = await command("handoff", "01:00.0")
        assert lent.status == 0
        assert lent.out.startswith("Waiting for programs that have asked for that, at most 5 s.\n")
        holding.send_signal(signal.SIGTERM)
        await asyncio.wait_for(holding.communicate(), PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_handoff_is_refused_by_name_and_reason_until_the_command_has_ended(number: int) -> None:
    async with simulated("igpu-dgpu") as command:
        holding = await command.start("inhibit", "--why", "a film is encoded", "--", "sh", "-c", "echo runs; exec sleep 5")
        assert holding.stdout is not None
        assert await asyncio.wait_for(holding.stdout.readline(), PATIENCE) == b"runs\n"
        refused = await command("handoff", "01:00.0")
        assert refused.status == 3
        assert refused.err == "gpuhandoff: sh does not want the GPU handed off now: a film is encoded.\n"
        holding.send_signal(number)
        await asyncio.wait_for(holding.wait(), PATIENCE)
        assert (await command("handoff", "01:00.0")).status == 0
        await asyncio.wait_for(holding.communicate(), PATIENCE)  # where we were killed, the program goes on
