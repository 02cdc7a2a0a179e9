"""A move that is interrupted: Ctrl-C, a terminal that goes away, `gpuhandoff cancel`, a daemon or a bus that dies."""

from __future__ import annotations

import asyncio
import signal

import pytest

from gpuhandoff import errors
from gpuhandoff.messages import Body, Call, Variant
from tests.support.bus import private_bus
from tests.support.command_daemon import JOB, Command, FakeDaemon

FORTH = [("unload-driver", "apply", 1), ("unload-driver", "done", 1), ("bind-vfio", "apply", 2), ("bind-vfio", "done", 2)]


BACK = [("bind-vfio", "undo", 2), ("bind-vfio", "undone", 2), ("unload-driver", "undo", 1), ("unload-driver", "undone", 1)]


async def started(daemon: FakeDaemon, command: Command, *words: str) -> asyncio.subprocess.Process:
    """Start a handoff that has done one step and works on the next."""
    daemon.answers["Handoff"] = daemon.begin(*FORTH[:3])
    process = await command.start("handoff", *words)
    assert process.stdout is not None
    assert await process.stdout.readline()
    return process


async def test_ctrl_c_cancels_and_shows_the_way_back(daemon: FakeDaemon, command: Command) -> None:
    async def cancel(call: Call) -> Body:
        assert call.path == JOB
        await daemon.play(*BACK, result="cancelled", error=errors.CancelledJobError.name, message="The job was cancelled.")
        return ()

    daemon.answers["Cancel"] = cancel
    process = await started(daemon, command)
    process.send_signal(signal.SIGINT)
    ended = await command.finish(process)
    assert ended.status == 130
    assert ended.out == (
        "Cancelling: what was done is undone. Ctrl-C again leaves that to gpuhandoffd.\n"
        "✗ 2/2 bind vfio-pci\n"
        "↶ 2/2 unbind vfio-pci\n"
        "↶ 1/2 load the driver\n"
    )
    assert ended.err == "gpuhandoff: The job was cancelled.\n"


async def test_a_second_ctrl_c_leaves_it_running(daemon: FakeDaemon, command: Command) -> None:
    process = await started(daemon, command)
    process.send_signal(signal.SIGINT)
    await daemon.until("Cancel")
    process.send_signal(signal.SIGINT)
    ended = await command.finish(process)
    assert ended.status == 130
    assert ended.err == "gpuhandoff: left it to gpuhandoffd; `gpuhandoff watch` follows it.\n"


async def test_ctrl_c_when_it_is_too_late(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers["Cancel"] = errors.WrongStateError("Job 1 is taking it back, which is never stopped half-way.")
    process = await started(daemon, command)
    process.send_signal(signal.SIGINT)
    await daemon.until("Cancel")
    await asyncio.sleep(0.1)
    await daemon.play(FORTH[3], result="done")
    ended = await command.finish(process)
    assert ended.status == 0
    assert "Job 1 is taking it back, which is never stopped half-way.\n✓ 2/2 bind vfio-pci\n" in ended.out


async def test_ctrl_c_before_there_is_a_job(daemon: FakeDaemon, command: Command) -> None:
    """While polkit waits for the password, say."""
    asking = asyncio.Event()

    async def ask(call: Call) -> Body:
        await asking.wait()
        return (JOB,)

    daemon.answers["Handoff"] = ask
    process = await command.start("handoff")
    await daemon.until("Handoff")
    process.send_signal(signal.SIGINT)
    ended = await command.finish(process)
    asking.set()
    assert ended.status == 130
    assert "given up before gpuhandoffd had answered" in ended.err
    assert "Cancel" not in daemon.members()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_dying_terminal_cancels_nothing(daemon: FakeDaemon, command: Command, number: int) -> None:
    """A handoff that ends the desktop ends the terminal it was typed into."""
    process = await started(daemon, command)
    process.send_signal(number)
    assert (await command.finish(process)).status == -number
    await asyncio.sleep(0.1)
    assert "Cancel" not in daemon.members()


async def test_cancel(daemon: FakeDaemon, command: Command) -> None:
    def on(job: str) -> Variant:
        return Variant("a{sv}", {"job": Variant("o", job)})

    async def cancel(call: Call) -> Body:
        await daemon.play(
            *BACK[:2], result="cancelled", error=errors.CancelledJobError.name, message="The job was cancelled."
        )
        return ()

    daemon.answers = {"Status": ({"0000:01:00.0": on(JOB), "0000:02:00.0": on("/"), "kernel": Variant("s", "6.12")},)}
    daemon.answers["Cancel"] = cancel
    ended = await command("cancel", "01:00.0")
    assert (ended.status, ended.out) == (0, "↶ 2/2 unbind vfio-pci\n")
    assert daemon.last("Cancel").path == JOB
    for words in (("cancel", "02:00.0"), ("cancel", "0.0")):
        assert (await command(*words)).status == 3
    daemon.answers["Status"] = ({"0000:01:00.0": on(JOB), "0000:02:00.0": on("/org/gpuhandoff/jobs/2")},)
    ended = await command("cancel")
    assert (ended.status, ended.err) == (3, "gpuhandoff: Name the GPU: jobs run on 0000:01:00.0, 0000:02:00.0.\n")


async def test_no_daemon(daemon: FakeDaemon, command: Command) -> None:
    await daemon.bus.close()
    for words in (("status",), ("handoff",), ("reclaim", "01:00.0"), ("watch",), ("run", "true"), ("plan",), ("cancel",)):
        ended = await command(*words)
        assert ended.status == 5
        assert ended.err.startswith("gpuhandoff: gpuhandoffd is not running and could not be started: The name ")
        assert ended.err.endswith("Try `systemctl status gpuhandoffd`.\n")


async def test_no_bus() -> None:
    ended = await Command("unix:path=/nonexistent/bus")("handoff", "--json")
    assert ended.status == 5
    told = "unix:path=/nonexistent/bus: No such file or directory."
    assert ended.err == f"gpuhandoff: The system bus cannot be reached: {told}\n"
    assert ended.documents[0]["exit"] == 5
    assert (await Command("nonsense")("status")).status == 5


WENT = "gpuhandoff: gpuhandoffd went away before it had answered. When it starts again it puts back what was under way; "


async def test_a_daemon_that_dies_before_it_answers(daemon: FakeDaemon, command: Command) -> None:
    async def die(call: Call) -> Body:
        await daemon.bus.close()
        return ()

    daemon.answers = {"Handoff": die, "Plan": die}
    ended = await command("handoff")
    assert ended.status == 5
    assert ended.err.startswith(WENT)


async def test_a_daemon_that_dies_in_the_middle_of_a_call(daemon: FakeDaemon, command: Command) -> None:
    async def die(call: Call) -> Body:
        await daemon.bus.close()
        return ()

    daemon.answers = {"Preview": die}
    ended = await command("plan")
    assert ended.status == 5
    assert ended.err.startswith(WENT)


async def test_a_daemon_that_dies_in_the_middle_of_a_job(daemon: FakeDaemon, command: Command) -> None:
    process = await started(daemon, command)
    await daemon.bus.close()
    ended = await command.finish(process)
    assert ended.status == 5
    assert ended.out == "✗ 2/2 bind vfio-pci\n"
    assert ended.err.startswith(WENT)


async def test_a_bus_that_dies_in_the_middle_of_a_job() -> None:
    with private_bus() as bus:
        daemon, command = await FakeDaemon.start(bus.address), Command(bus.address)
        process = await started(daemon, command)
        bus.kill()
        ended = await command.finish(process)
        await daemon.close()
    assert ended.status == 5
    assert ended.err == "gpuhandoff: The system bus cannot be reached: it went away.\n"


async def test_a_reader_that_leaves_does_not_stop_a_job(daemon: FakeDaemon, command: Command) -> None:
    process = await started(daemon, command)
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    process.stdout = None
    await daemon.play(FORTH[3], result="done")
    assert await asyncio.wait_for(process.wait(), 10) == 0
