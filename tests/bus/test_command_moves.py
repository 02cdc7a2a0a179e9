"""`gpuhandoff handoff`, `reclaim`, `cancel`: a job from its beginning to whatever end."""

from __future__ import annotations

import asyncio
import os
import pty
import sys

import pytest
from dbus_next import Message, MessageType

from gpuhandoff import errors
from gpuhandoff.errors import ProblemError
from gpuhandoff.messages import Body, Call, Signal, Variant
from gpuhandoff.names import MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.service.bus import answers, connect
from tests.support.command_daemon import GPU, JOB, OTHER, Command, FakeDaemon

FORTH = [("unload-driver", "apply", 1), ("unload-driver", "done", 1), ("bind-vfio", "apply", 2), ("bind-vfio", "done", 2)]


BACK = [("bind-vfio", "undo", 2), ("bind-vfio", "undone", 2), ("unload-driver", "undo", 1), ("unload-driver", "undone", 1)]


FAILING = [*FORTH[:3], *BACK]


async def test_a_handoff_in_a_pipe(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done")}
    ended = await command("handoff", "01:00.0", "--stop-display")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == "✓ 1/2 unload the driver\n✓ 2/2 bind vfio-pci\n0000:01:00.0 is ready for the guest.\n"
    call = daemon.last("Handoff")
    assert call.body == ("01:00.0", {"stop-display": Variant("b", True), "wait": Variant("b", False)})
    assert call.interactive


async def test_no_ask(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done")}
    await command("handoff", "--no-ask")
    assert not daemon.last("Handoff").interactive


async def test_a_reclaim_in_a_pipe(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Reclaim": daemon.begin(*BACK, result="done")}
    ended = await command("reclaim", "--evict-guest", LANG="C")
    assert ended.status == 0
    assert ended.out == "<- 2/2 unbind vfio-pci\n<- 1/2 load the driver\n0000:01:00.0 is back with the host.\n"
    options = {"holders": Variant("s", "terminate"), "wait": Variant("b", False)}
    assert daemon.last("Reclaim").body == ("", options)


async def test_a_handoff_as_json(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done")}
    documents = (await command("handoff", "--json")).documents
    assert documents[0] == {"event": "job", "job": JOB}
    assert documents[1] == {
        "event": "step", "gpu": "0000:01:00.0", "step": "unload-driver", "phase": "apply", "index": 1, "count": 2,
    }  # fmt: skip
    assert documents[-1] == {
        "event": "end", "job": JOB, "gpu": "0000:01:00.0", "result": "done", "error": "", "message": "", "exit": 0,
    }  # fmt: skip
    assert len(documents) == 6


async def test_no_wait(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Handoff": daemon.begin()}
    assert (await command("handoff", "--no-wait")).out == f"{JOB}\n"
    assert (await command("handoff", "--no-wait", "--json")).documents == [{"event": "job", "job": JOB}]


async def test_a_failure_that_is_undone(daemon: FakeDaemon, command: Command) -> None:
    message = "The step bind-vfio failed: EBUSY. Everything is as it was."
    daemon.answers = {
        "Handoff": daemon.begin(*FAILING, result="rolled-back", error=errors.RolledBackError.name, message=message)
    }
    ended = await command("handoff")
    assert ended.status == 1
    assert ended.err == f"gpuhandoff: {message}\n"
    assert ended.out == "✓ 1/2 unload the driver\n✗ 2/2 bind vfio-pci\n↶ 2/2 unbind vfio-pci\n↶ 1/2 load the driver\n"


ENDS = [
    ("rolled-back", errors.RolledBackError, 1),
    ("rolled-back", errors.TimedOutError, 6),
    ("failed", errors.InUseError, 3),
    ("failed", errors.ProblemError, 1),
    ("stuck", errors.StuckError, 7),
    ("cancelled", errors.CancelledJobError, 130),
]


@pytest.mark.parametrize(("result", "error", "status"), ENDS)
async def test_how_a_job_ends_is_the_exit_status(
    daemon: FakeDaemon, command: Command, result: str, error: type[ProblemError], status: int
) -> None:
    daemon.answers = {"Handoff": daemon.begin(*FORTH[:1], result=result, error=error.name, message="Because.")}
    ended = await command("handoff", "--json")
    assert (ended.status, ended.err) == (status, "gpuhandoff: Because.\n")
    assert ended.documents[-1]["exit"] == status


REFUSALS = [
    (errors.NotFoundError("There is no GPU at 0000:09:00.0."), 3, "There is no GPU at 0000:09:00.0."),
    (errors.AmbiguousError("Name the GPU."), 3, "Name the GPU."),
    (errors.BusyError("Busy."), 3, "Busy."),
    (errors.InhibitedError("No."), 3, "No."),
    (errors.NotIsolatedError("No."), 3, "No."),
    (errors.UnsupportedError("Use hugepages=transparent."), 3, "Use --hugepages transparent."),
    (errors.WrongStateError("No."), 3, "No."),
    (errors.LimitsExceededError("No."), 3, "No."),
    (
        errors.InUseError("In use by ollama. Allow it with the option holders=terminate."),
        3,
        "In use by ollama. Allow it with the option --terminate-holders.",
    ),
    (
        errors.NeedsConsentError("The desktop ends. Allow it with the option stop-display."),
        3,
        "The desktop ends. Allow it with the option --stop-display.",
    ),
    (
        errors.NeedsConsentError("It may not come back."),
        3,
        "It may not come back. Consent is given with --stop-display, --terminate-holders and --accept-risk.",
    ),
    (errors.InvalidArgsError("cpus: CPU 9 is not online."), 2, "cpus: CPU 9 is not online."),
    (
        errors.AccessDeniedError("You may not (org.gpuhandoff.handoff)."),
        4,
        "Access denied: You may not (org.gpuhandoff.handoff).",
    ),
    (
        errors.AuthorizationRequiredError("A password is needed."),
        4,
        "A password is needed. Try it without --no-ask, or as root.",
    ),
    (errors.TimedOutError("Took too long."), 6, "Took too long."),
    (errors.StuckError("Stuck."), 7, "Stuck."),
    (errors.ProblemError("\x1b[31mRed\nline"), 1, "?[31mRed line"),
]


@pytest.mark.parametrize(("problem", "status", "told"), REFUSALS)
async def test_a_refusal_is_told(
    daemon: FakeDaemon,
    command: Command,
    problem: ProblemError,
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "plain", str)  # a daemon that says anything at all
    daemon.answers = {"Handoff": problem}
    ended = await command("handoff", "--json")
    assert (ended.status, ended.err) == (status, f"gpuhandoff: {told}\n")
    assert ended.documents == [{"event": "error", "error": problem.name, "message": problem.message, "exit": status}]


async def test_a_refused_reclaim_names_its_own_option(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Reclaim": errors.InUseError("In use. Allow it with the option holders=terminate.")}
    assert "--evict-guest" in (await command("reclaim")).err


async def test_only_this_job_is_shown(daemon: FakeDaemon, command: Command) -> None:
    async def among_others(call: Call) -> Body:
        daemon.emit("Progress", GPU, "bind-vfio", "done", 2, 2)  # of a job that ends just before ours begins
        daemon.emit("JobRemoved", "/org/gpuhandoff/jobs/0", "done")
        daemon.emit("Progress", OTHER, "quiet-host", "done", 1, 2)
        started = await daemon.begin(*FORTH)(call)
        asyncio.get_running_loop().call_later(0.1, others_too)
        return started

    def others_too() -> None:
        daemon.emit("Progress", OTHER, "quiet-host", "done", 2, 2)
        daemon.emit("JobRemoved", "/org/gpuhandoff/jobs/2", "done")
        daemon.end("done")

    daemon.answers = {"Handoff": among_others}
    ended = await command("handoff")
    assert ended.out == "✓ 1/2 unload the driver\n✓ 2/2 bind vfio-pci\n0000:01:00.0 is ready for the guest.\n"


async def test_joining_a_job_that_runs_already(daemon: FakeDaemon, command: Command) -> None:
    async def join(call: Call) -> Body:
        asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(daemon.play(*FORTH[2:], result="done")))
        return (JOB,)

    daemon.answers = {"Handoff": join}
    assert (await command("handoff")).out == "✓ 2/2 bind vfio-pci\n0000:01:00.0 is ready for the guest.\n"


async def test_joining_a_job_that_has_just_ended(daemon: FakeDaemon, command: Command) -> None:
    async def join(call: Call) -> Body:
        daemon.job["Result"] = "done"
        return (JOB,)

    daemon.answers = {"Handoff": join}
    assert (await command("handoff")).out == "0000:01:00.0 is ready for the guest.\n"


async def test_signals_of_others_mean_nothing(daemon: FakeDaemon, command: Command) -> None:
    """Anybody may send anybody a signal on the system bus, with any name in it."""
    caller: list[str] = []

    async def begin(call: Call) -> Body:
        caller.append(call.sender)
        return (JOB,)

    daemon.answers = {"Handoff": begin}
    process = await command.start("handoff")
    await daemon.until("Handoff")
    liar = await connect(daemon.address)
    for member, signature, body in (
        ("Progress", "ossuu", [GPU, "quiet-host", "done", 1, 1]),
        ("JobRemoved", "os", [JOB, "done"]),
    ):
        lie = Message(
            destination=caller[0], path=MANAGER_PATH, interface=MANAGER_INTERFACE, member=member,
            message_type=MessageType.SIGNAL, signature=signature, body=body,
        )  # fmt: skip
        await liar._bus.send(lie)
    liar.emit(Signal(MANAGER_PATH, MANAGER_INTERFACE, "JobRemoved", "os", (JOB, "done")))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.5)
    daemon.end("done")
    assert (await command.finish(process)).out == "0000:01:00.0 is ready for the guest.\n"
    await liar.close()


async def on_a_terminal(daemon: FakeDaemon, command: Command, **environment: str) -> str:
    """Run a handoff on a pseudo-terminal and return what it shows."""
    daemon.answers = {"Handoff": daemon.begin(*FORTH, result="done")}
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gpuhandoff_command", "handoff", stdout=theirs, env=command.environment | environment
        )
        assert await asyncio.wait_for(process.wait(), 20) == 0
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_terminal_sees_each_step_at_work(daemon: FakeDaemon, command: Command) -> None:
    shown = await on_a_terminal(daemon, command, TERM="xterm", NO_COLOR="")
    assert "\r\x1b[2K\x1b[2m…\x1b[0m 1/2 unload the driver\r\x1b[2K\x1b[32m✓\x1b[0m 1/2 unload the driver\r\n" in shown


async def test_a_terminal_without_colours(daemon: FakeDaemon, command: Command) -> None:
    shown = await on_a_terminal(daemon, command, TERM="xterm", NO_COLOR="1", LANG="C")
    assert "\r\x1b[2K.. 1/2 unload the driver\r\x1b[2Kok 1/2 unload the driver\r\n" in shown


async def test_a_dumb_terminal(daemon: FakeDaemon, command: Command) -> None:
    shown = await on_a_terminal(daemon, command, TERM="dumb")
    assert shown == "✓ 1/2 unload the driver\r\n✓ 2/2 bind vfio-pci\r\n0000:01:00.0 is ready for the guest.\r\n"
