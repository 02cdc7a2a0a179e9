"""Output that cannot be written: a full disk, a closed stream, a terminal that dies of its own handoff."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from pathlib import Path

import pytest

from gpuhandoff import errors
from tests.support.bus import private_bus
from tests.support.command_daemon import PATIENCE, Command, Ended, FakeDaemon
from tests.support.shown import STEPS, gpu, status

FORTH = [("unload-driver", "apply", 1), ("unload-driver", "done", 1), ("bind-vfio", "apply", 2), ("bind-vfio", "done", 2)]
FULL = "standard output cannot be written to: No space left on device."


async def redirected(command: Command, redirection: str, *words: str) -> Ended:
    """Run the command with a shell's redirection."""
    process = await asyncio.create_subprocess_exec(
        *("env", "--default-signal=HUP,INT,TERM", "sh", "-c", f'exec "$@" {redirection}', "sh"),
        *(sys.executable, "-m", "gpuhandoff_command", *words),
        env=command.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await command.finish(process)


@pytest.mark.parametrize("words", [("handoff",), ("handoff", "--json")])
async def test_a_handoff_ends_as_the_job_does(daemon: FakeDaemon, command: Command, words: tuple[str, ...]) -> None:
    """The exit status 1 would say that what was done is undone."""
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done")}
    assert await redirected(command, ">/dev/full", *words) == Ended(0, "", f"gpuhandoff: {FULL}\n")


@pytest.mark.parametrize("out", ["", ">&-", ">/dev/full"])
@pytest.mark.parametrize("complaints", ["2>&-", "2>/dev/full"])
async def test_whatever_stream_is_missing(daemon: FakeDaemon, command: Command, out: str, complaints: str) -> None:
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done")}
    ended = await redirected(command, f"{out} {complaints}", "handoff")
    assert (ended.status, ended.err) == (0, "")
    assert ("is ready for the guest" in ended.out) == (not out)


async def test_errors_that_cannot_be_told_leave_the_output_alone(
    daemon: FakeDaemon, command: Command, tmp_path: Path
) -> None:
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done"), "Reclaim": daemon.begin(result="done")}
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    ended = await redirected(command, "2>/dev/full", "run", "--json", str(program))
    assert ended.status == 126
    assert [one["event"] for one in ended.documents if one["event"] in {"command", "end"}] == ["end", "command", "end"]


async def test_errors_go_nowhere_else(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": errors.AccessDeniedError("You are not allowed to do this.")}
    assert await redirected(command, "2>&-", "status") == Ended(4, "", "")


async def test_run_starts_its_program_and_takes_back(daemon: FakeDaemon, command: Command) -> None:
    """Else the lease would end before the program has begun."""
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done"), "Reclaim": daemon.begin(result="done")}
    ended = await redirected(command, ">/dev/full", "run", "--", "sh", "-c", "echo ran >&2; exit 4")
    assert ended == Ended(4, "", f"ran\ngpuhandoff: {FULL}\n")
    assert daemon.members() == ["Handoff", "Reclaim"]


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("watch",)])
async def test_what_only_tells_has_failed(daemon: FakeDaemon, command: Command, words: tuple[str, ...]) -> None:
    daemon.answers = {"Status": status(gpu("0000:01:00.0", "host")), "Plan": (STEPS,)}
    assert await redirected(command, ">/dev/full", *words) == Ended(1, "", f"gpuhandoff: {FULL}\n")


async def test_a_closed_stream_is_one_that_nobody_reads(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status(gpu("0000:01:00.0", "host")), "Plan": (STEPS,)}
    assert await redirected(command, ">&-", "status") == Ended(0, "", "")


async def test_an_error_of_its_own_stays_what_it_is() -> None:
    with private_bus() as bus:
        ended = await redirected(Command(bus.address), ">/dev/full", "status", "--json")
    assert ended.status == 5
    assert ended.err.endswith(f"\ngpuhandoff: {FULL}\n")


async def test_a_terminal_that_dies_of_its_handoff(daemon: FakeDaemon, command: Command) -> None:
    """Whoever ignores SIGHUP, as tmux and nohup have it, goes on, and what it writes is EIO."""
    daemon.answers = {"Handoff": daemon.begin(*FORTH[:3])}
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *("env", "--ignore-signal=HUP", sys.executable, "-m", "gpuhandoff_command", "handoff"),
        env=command.environment | {"TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(slave)
    assert await asyncio.to_thread(os.read, master, 1)
    os.close(master)
    await daemon.play(FORTH[3], result="done")
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, said) == (0, b"gpuhandoff: standard output cannot be written to: Input/output error.\n")
