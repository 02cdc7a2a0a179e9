"""`gpuhandoff run`: the command's own life, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gpuhandoff import errors
from gpuhandoff.messages import Variant
from tests.support.bus import private_bus
from tests.support.command_daemon import Command, FakeDaemon, fake_daemon

ONCE = [("bind-vfio", "apply", 1), ("bind-vfio", "done", 1)]


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with fake_daemon() as running:
        running.answers = {"Handoff": running.begin(*ONCE, result="done"), "Reclaim": running.begin(result="done")}
        yield running


async def test_lend_run_take_back(daemon: FakeDaemon, command: Command) -> None:
    ended = await command("run", "--gpu", "01:00.0", "--vm", "win11", "--", "echo", "--json", "hello")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == (
        "✓ 1/2 bind vfio-pci\n0000:01:00.0 is ready for the guest.\n--json hello\n0000:01:00.0 is back with the host.\n"
    )
    assert daemon.members() == ["Handoff", "Reclaim"]
    options = {"vm": Variant("s", "win11"), "lease": Variant("b", True), "wait": Variant("b", False)}
    assert daemon.last("Handoff").body == ("01:00.0", options)
    assert daemon.last("Reclaim").body == ("0000:01:00.0", {"wait": Variant("b", False)})


async def test_the_way_back_is_shown_once(daemon: FakeDaemon, command: Command) -> None:
    back = [("bind-vfio", "undo", 1), ("bind-vfio", "undone", 1)]
    daemon.answers["Reclaim"] = daemon.begin(*back, result="done")
    ended = await command("run", "--json", "--", "true")
    steps = [(one["step"], one["phase"]) for one in ended.documents if one["event"] == "step"]
    assert steps == [*((step, phase) for step, phase, _ in [*ONCE, *back])]


async def test_one_connection_is_the_lease(daemon: FakeDaemon, command: Command) -> None:
    await command("run", "true")
    assert daemon.last("Handoff").sender == daemon.last("Reclaim").sender


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
async def test_the_exit_status_is_the_commands(daemon: FakeDaemon, command: Command, script: str, status: int) -> None:
    assert (await command("run", "--", "sh", "-c", script)).status == status
    assert daemon.members() == ["Handoff", "Reclaim"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_are_passed_on(daemon: FakeDaemon, command: Command, number: int) -> None:
    script = f"trap 'echo got it; exit 9' {number}; echo ready; while :; do sleep 0.05; done"
    process = await command.start("run", "--", "sh", "-c", script)
    assert process.stdout is not None
    while await process.stdout.readline() != b"ready\n":
        pass
    process.send_signal(number)
    ended = await command.finish(process)
    assert ended.status == 9
    assert ended.out == "got it\n0000:01:00.0 is back with the host.\n"


async def test_ctrl_c_on_a_terminal_reaches_the_command_once(daemon: FakeDaemon, command: Command) -> None:
    """The terminal signals the whole process group, so passing it on would be a second one."""
    script = (
        "import os, signal, sys, time\n"
        "ours, theirs = os.pipe(); os.set_blocking(theirs, False); signal.set_wakeup_fd(theirs)\n"
        "signal.signal(signal.SIGINT, lambda *_: None); print('listening', flush=True)\n"
        "count = len(os.read(ours, 1)); time.sleep(0.3); os.set_blocking(ours, False)\n"
        "try: count += len(os.read(ours, 9))\n"
        "except BlockingIOError: pass\n"
        "print('got it', count); sys.exit(9)"
    )
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        "setsid", "--ctty", "--wait", sys.executable, "-m", "gpuhandoff_command", "run", "--", sys.executable, "-c", script,
        stdin=theirs, stdout=theirs, stderr=theirs, env=command.environment,
    )  # fmt: skip
    os.close(theirs)
    loop, shown = asyncio.get_running_loop(), ""
    while "listening" not in shown:
        shown += (await loop.run_in_executor(None, os.read, ours, 4096)).decode()
    os.write(ours, b"\x03")
    while "back with the host" not in shown:
        shown += (await loop.run_in_executor(None, os.read, ours, 4096)).decode()
    status = await asyncio.wait_for(process.wait(), 10)
    os.close(ours)
    assert status == 9, shown
    assert "got it 1" in shown


async def test_what_cannot_be_run_is_refused_before_the_screen_goes_dark(
    daemon: FakeDaemon, command: Command, tmp_path: Path
) -> None:
    for program in ("no-such-program", str(tmp_path), str(tmp_path / "absent")):
        ended = await command("run", "--", program)
        assert ended.status == 127
        assert ended.err == f"gpuhandoff: {program} is no program that can be run; nothing was done.\n"
    for words in (("run",), ("inhibit",)):
        ended = await command(*words, "--json", "--", "no-such-program")
        (told,) = ended.documents
        assert (ended.status, told["event"], told["exit"]) == (127, "error", 127)
        assert told["error"] == "org.freedesktop.DBus.Error.FileNotFound"
        assert ended.err == f"gpuhandoff: {told['message']}\n"
    assert daemon.members() == []


async def test_what_cannot_be_run_after_all(daemon: FakeDaemon, command: Command, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    program.chmod(0o755)
    ended = await command("run", "--json", "--", str(program))
    assert ended.status == 126
    assert daemon.members() == ["Handoff", "Reclaim"]
    (told,) = (one for one in ended.documents if one["event"] == "error")
    assert (
        ended.err
        == f"gpuhandoff: {told['message']}\n"
        == f"gpuhandoff: {program} cannot be run: No such file or directory.\n"
    )
    assert (told["error"], told["exit"]) == ("org.freedesktop.DBus.Error.Spawn.ExecFailed", 126)


async def test_a_refused_handoff_runs_nothing(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers["Handoff"] = errors.NeedsConsentError("Allow it with the option stop-display.")
    ended = await command("run", "echo", "ran")
    assert (ended.status, ended.out) == (3, "")
    assert ended.err == "gpuhandoff: Allow it with the option --stop-display.\n"


async def test_a_handoff_that_fails_runs_nothing(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers["Handoff"] = daemon.begin(*ONCE[:1], result="stuck", error=errors.StuckError.name, message="Stuck.")
    ended = await command("run", "echo", "ran")
    assert (ended.status, ended.out) == (7, "✗ 1/2 bind vfio-pci\n")
    assert daemon.members() == ["Handoff"]


@pytest.mark.parametrize(("script", "status"), [("exit 0", 7), ("exit 3", 3)])
async def test_a_reclaim_that_fails_counts_unless_the_command_failed(
    daemon: FakeDaemon, command: Command, script: str, status: int
) -> None:
    daemon.answers["Reclaim"] = daemon.begin(result="stuck", error=errors.StuckError.name, message="It is stuck.")
    ended = await command("run", "--", "sh", "-c", script)
    assert (ended.status, ended.err) == (status, "gpuhandoff: It is stuck.\n")


async def test_a_refused_reclaim(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers["Reclaim"] = errors.InUseError("qemu (pid 7) has it open.")
    ended = await command("run", "true", "--json")
    assert (ended.status, ended.err) == (3, "gpuhandoff: qemu (pid 7) has it open.\n")


async def test_somebody_else_took_it_back(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers["Reclaim"] = errors.WrongStateError("It is with the host already.")
    assert (await command("run", "true")).status == 0


async def test_as_json(daemon: FakeDaemon, command: Command) -> None:
    documents = (await command("run", "--json", "--", "sh", "-c", "exit 4")).documents
    assert [one["event"] for one in documents] == ["job", "step", "step", "end", "command", "job", "end"]
    assert documents[4] == {"event": "command", "status": 4}


async def test_killed_it_leaves_the_bus(daemon: FakeDaemon, command: Command) -> None:
    """That is all the daemon needs: the lease ends with the connection."""
    process = await command.start("run", "--", "sleep", "1.5")
    await daemon.until("Handoff")
    await asyncio.sleep(0.3)
    sender = daemon.last("Handoff").sender
    bus = "org.freedesktop.DBus"
    assert (await daemon.bus.call(bus, "/org/freedesktop/DBus", bus, "NameHasOwner", "s", (sender,)))[0]
    process.kill()
    await process.wait()
    await asyncio.sleep(0.1)
    assert not (await daemon.bus.call(bus, "/org/freedesktop/DBus", bus, "NameHasOwner", "s", (sender,)))[0]


async def test_a_daemon_that_restarts_meanwhile(daemon: FakeDaemon, command: Command) -> None:
    process = await command.start("run", "--", "sh", "-c", "echo ready; sleep 1; exit 5")
    assert process.stdout is not None
    while await process.stdout.readline() != b"ready\n":
        pass
    await daemon.bus.close()
    again = await FakeDaemon.start(daemon.address)
    again.answers["Reclaim"] = again.begin(result="done")
    assert (await command.finish(process)).status == 5
    assert again.members() == ["Reclaim"]
    await again.close()


async def test_a_bus_that_restarts_meanwhile() -> None:
    with private_bus() as bus:
        daemon, command = await FakeDaemon.start(bus.address), Command(bus.address)
        daemon.answers = {"Handoff": daemon.begin(result="done")}
        process = await command.start("run", "--", "sh", "-c", "echo ready; sleep 1; exit 5")
        assert process.stdout is not None
        while await process.stdout.readline() != b"ready\n":
            pass
        bus.kill()
        await daemon.close()
        bus.start()
        again = await FakeDaemon.start(bus.address)
        again.answers["Reclaim"] = again.begin(result="done")
        assert (await command.finish(process)).status == 5
        assert again.members() == ["Reclaim"]
        await again.close()
