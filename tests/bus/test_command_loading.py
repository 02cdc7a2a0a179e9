"""Ctrl-C before there is anything to interrupt, and after it: no traceback, and no exit status that says something else."""

from __future__ import annotations

import signal

import pytest

from tests.support.command_daemon import Command, Ended, FakeDaemon
from tests.support.shown import STEPS, gpu, status

INTERRUPTED = """\
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *others):
        if name == {!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())"""
"""Ctrl-C in the moment in which a module is looked for."""
AT_THE_END = "import atexit, os, signal; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))"


@pytest.mark.parametrize(
    ("command_line", "module"),
    [
        (("--help",), "argparse"),
        (("status",), "gpuhandoff_command.arguments"),
        (("status",), "gpuhandoff_command.terminal"),
        (("run", "true"), "asyncio"),
        (("run", "true"), "dbus_next"),
        (("run", "true"), "gpuhandoff_command.lease"),
        (("doctor",), "gpuhandoff_command.doctor"),
        (("handoff",), "gpuhandoff_command.sentences"),
    ],
)
async def test_while_it_loads_it_dies_of_it(
    daemon: FakeDaemon, command: Command, command_line: tuple[str, ...], module: str
) -> None:
    """A shell makes 130 of that."""
    ended = await command(*command_line, prelude=INTERRUPTED.format(module))
    assert ended == Ended(-signal.SIGINT, "", "")
    assert daemon.members() == []


async def test_when_it_is_done_the_exit_status_is_the_jobs(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Handoff": daemon.begin(("bind-vfio", "done", 2), result="done")}
    ended = await command("handoff", prelude=AT_THE_END)
    assert (ended.status, ended.err) == (0, "")


async def test_where_it_is_ignored_it_stays_ignored(daemon: FakeDaemon, command: Command) -> None:
    """As a script's background commands have it."""
    daemon.answers = {"Status": status(gpu("0000:01:00.0", "host")), "Plan": (STEPS,)}
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    ended = await command("status", prelude=ignoring + INTERRUPTED.format("dbus_next"))
    assert (ended.status, ended.err) == (0, "")
