"""`gpuhandoff history` and `gpuhandoff report`: what a person sees, and what a script reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gpuhandoff.errors import AccessDeniedError, InvalidArgsError
from gpuhandoff.messages import Variant
from tests.support.command_daemon import Command, FakeDaemon, fake_daemon

EVIL = "\x1b[2J\x07\u009b31m\u202eEvil"
NAME = "NVIDIA GeForce RTX 4070"
NOON = 1_764_072_000_000_000
"""2025-11-25 12:00:00 UTC, in microseconds."""
TYPES = {"uid": "u", "job": "u", "began": "t", "seconds": "d", "steps": "a(ssd)"}


def move(operation: str, outcome: str, **more: Any) -> dict[str, Variant]:
    values: dict[str, Any] = {
        "gpu": "0000:01:00.0", "name": NAME, "operation": operation, "why": "asked", "vm": "", "uid": 1000, "job": 3,
        "boot": "b", "began": NOON, "seconds": 4.25, "outcome": outcome, "back": "", "message": "",
        "steps": [("bind-vfio", "done" if operation == "handoff" else "undone", 0.25)],
    } | more  # fmt: skip
    return {key: Variant(TYPES.get(key, "s"), value) for key, value in values.items()}


MOVES = [
    move("reclaim", "done", began=NOON + 3_600_000_000, seconds=2.0, why="lease-ended", uid=0),
    move("handoff", "done", vm="win11", back="reclaimed"),
    move("handoff", "rolled-back", message="The step bind-vfio failed: EIO. Everything was put back as it was."),
    move(
        "handoff", "refused", steps=[], message=f"0000:01:00.0 ({NAME}) shows the desktop. Allow it with the option quiet."
    ),
    move("handoff", "done", back="reboot", gpu="0001:02:00.0"),
    move("handoff", "interrupted", back="reboot", steps=[], message="The machine went down in the middle."),
    move("reclaim", "done", why="recovery"),
    move("handoff", "cancelled", message="The job was cancelled. Everything was put back as it was."),
    move("reclaim", "stuck", message="x is stuck.", steps=[("bind-vfio", "undo", 30.0)]),
    move("handoff", "running", steps=[]),
    move("handoff", "something-new", why="something-else"),
]

REPORT: dict[str, Any] = {
    "report": 1,
    "made": "2026-11-24T12:00:00Z",
    "versions": {
        "gpuhandoff": "0.1.0", "kernel": "6.12.48", "systemd": "257", "python": "3.13.5", "distribution": "Debian 13",
    },
    "gpus": {"0000:01:00.0": {"name": NAME, "state": "stuck", "reason": "it hangs", "driver": ""}},
    "history": [{key: variant.value for key, variant in one.items()} for one in MOVES[:2]],
    "machine": {"text": EVIL},
    "kernel-log": ["vfio-pci 0000:01:00.0: hello"],
    "log": ["first\nsecond"],
    "left-out": ["names of users (user1, ...)", "paths below home directories"],
    "notes": ["the version of systemd: no answer within 15 s"],
}  # fmt: skip


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with fake_daemon() as running:
        running.answers = {"History": (MOVES,), "Report": (json.dumps(REPORT),)}
        yield running


@pytest.fixture
def command(daemon: FakeDaemon) -> Command:
    command = Command(daemon.address)
    command.environment["TZ"] = "UTC"
    return command


async def test_history(daemon: FakeDaemon, command: Command) -> None:
    ended = await command("history")
    assert (ended.status, ended.err) == (0, "")
    what = [
        ("01:00.0  take back (the lease ended)", "✓ done, 2.0 s"),
        ("01:00.0  lend to win11", "✓ done, 4.2 s"),
        ("01:00.0  lend", "✗ failed, all of it undone, 4.2 s"),
        ("01:00.0  lend", "✗ refused"),
        ("0001:02:00.0  lend", "✓ done; a reboot brought it back, 4.2 s"),
        ("01:00.0  lend", "✗ interrupted"),
        ("01:00.0  take back (recovery)", "✓ done, 4.2 s"),
        ("01:00.0  lend", "↶ cancelled, all of it undone, 4.2 s"),
        ("01:00.0  take back", "✗ STUCK, 4.2 s"),
        ("01:00.0  lend", "… under way"),
        ("01:00.0  lend", "✗ something-new, 4.2 s"),
    ]
    lines = ended.out.splitlines()
    assert [line for line in lines if line.startswith("    ")] == [
        "    The step bind-vfio failed: EIO. Everything was put back as it was.",
        "    shows the desktop. Allow it with the option --quiet-host.",
        "    The machine went down in the middle.",
        "    x is stuck.",
    ]
    shown = [line for line in lines if not line.startswith("    ")]
    assert [line[:19] for line in shown] == ["2025-11-25 13:00:00", *["2025-11-25 12:00:00"] * 10]
    assert [re.split("  +", line[21:], maxsplit=2) for line in shown] == [[*one.split("  "), end] for one, end in what]
    assert len({line.index(end) for line, (one, end) in zip(shown, what, strict=True) if one.startswith("01")}) == 1
    assert daemon.last("History").body == ("", 20)
    assert daemon.last("History").interactive


async def test_history_with_its_steps(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"History": ([MOVES[1], MOVES[0], MOVES[8]],)}
    ended = await command("history", "-v")
    assert ended.out == (
        f"2025-11-25 12:00:00  01:00.0  {'lend to win11':<27}  ✓ done, 4.2 s\n"
        f"    {NAME}, asked by uid 1000, job 3\n"
        "    ✓ bind vfio-pci                               0.25 s\n"
        "2025-11-25 13:00:00  01:00.0  take back (the lease ended)  ✓ done, 2.0 s\n"
        f"    {NAME}, asked by gpuhandoffd (lease-ended), job 3\n"
        "    ↶ unbind vfio-pci                             0.25 s\n"
        f"2025-11-25 12:00:00  01:00.0  {'take back':<27}  ✗ STUCK, 4.2 s\n"
        "    x is stuck.\n"
        f"    {NAME}, asked by uid 1000, job 3\n"
        "    ✗ unbind vfio-pci                            30.00 s\n"
    )


async def test_history_of_one_gpu_and_how_much(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"History": ([],)}
    ended = await command("history", "01:00.0", "-n", "3")
    assert ended.out == "Nothing has been done yet.\n"
    assert daemon.last("History").body == ("01:00.0", 3)


async def test_history_as_json(daemon: FakeDaemon, command: Command) -> None:
    (document,) = (await command("history", "--json")).documents
    assert len(document["moves"]) == len(MOVES)
    assert document["moves"][1]["steps"] == [{"step": "bind-vfio", "phase": "done", "seconds": 0.25}]
    assert document["moves"][1].items() >= {"outcome": "done", "back": "reclaimed", "began": NOON, "vm": "win11"}.items()


@pytest.mark.parametrize("words", [("history", "-v"), ("history", "--json"), ("report",), ("report", "--json")])
async def test_other_peoples_escape_sequences_are_never_printed(
    daemon: FakeDaemon, command: Command, words: tuple[str, ...]
) -> None:
    evil = move(
        "handoff",
        EVIL,
        name=EVIL,
        why=EVIL,
        vm=EVIL,
        message=EVIL,
        back=EVIL,
        steps=[(EVIL, EVIL, 1.0)],
        gpu=EVIL,
        boot=EVIL,
    )
    plain = {key: variant.value for key, variant in evil.items()}
    gpu = {"name": EVIL, "state": EVIL, "reason": EVIL, "driver": EVIL}
    report = REPORT | {
        "gpus": {EVIL: gpu}, "history": [plain], "kernel-log": [EVIL], "log": [EVIL], "notes": [EVIL], "made": EVIL,
        "versions": {"gpuhandoff": EVIL, "kernel": EVIL}, "left-out": [EVIL],
    }  # fmt: skip
    daemon.answers = {"History": ([evil],), "Report": (json.dumps(report),)}
    ended = await command(*words)
    assert ended.status == 0
    assert ended.out.replace("\n", "").isprintable()


@pytest.mark.parametrize("words", [("history",), ("report",)])
async def test_who_may_not_see_it(daemon: FakeDaemon, command: Command, words: tuple[str, ...]) -> None:
    daemon.answers = dict.fromkeys(["History", "Report"], AccessDeniedError("You are not allowed to do this."))
    ended = await command(*words)
    assert (ended.status, ended.out) == (4, "")
    assert ended.err == "gpuhandoff: Access denied: You are not allowed to do this.\n"


async def test_a_wrong_address_is_wrong_usage(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"History": InvalidArgsError("gpu: 'x' is not a PCI address such as 0000:01:00.0.")}
    assert (await command("history", "x")).status == 2


async def test_report_is_readable_and_complete(daemon: FakeDaemon, command: Command) -> None:
    ended = await command("report")
    assert (ended.status, ended.err) == (0, "")
    readable, _, everything = ended.out.partition("\nEverything, as JSON:\n")
    assert readable == (
        "gpuhandoff 0.1.0, report of 2026-11-24T12:00:00Z\n"
        "Debian 13, Linux 6.12.48, systemd 257, Python 3.13.5\n"
        "Left out: names of users (user1, ...); paths below home directories.\n"
        "\n"
        "GPUs:\n"
        f"  0000:01:00.0  {NAME}, stuck, driver none: it hangs\n"
        "\n"
        "Latest moves:\n"
        "  2025-11-25T13:00:00Z  01:00.0  take back (the lease ended)  ✓ done, 2.0 s\n"
        "  2025-11-25T12:00:00Z  01:00.0  lend to win11  ✓ done, 4.2 s\n"
        "\n"
        "The kernel's log:\n"
        "  vfio-pci 0000:01:00.0: hello\n"
        "\n"
        "The daemon's log:\n"
        "  first\n"
        "  second\n"
        "\n"
        "What could not be read:\n"
        "  the version of systemd: no answer within 15 s\n"
    )
    assert json.loads(everything) == REPORT | {"history": json.loads(json.dumps(REPORT["history"]))}
    assert daemon.last("Report").body == ({},)


async def test_report_with_names(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Report": (json.dumps(REPORT | {"left-out": []}),)}
    ended = await command("report", "--names")
    assert daemon.last("Report").body == ({"names": Variant("b", True)},)
    assert "\nIt contains names of users, virtual machines and the host.\n" in ended.out
    assert "Left out" not in ended.out


async def test_report_into_a_file(daemon: FakeDaemon, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    ended = await command("report", "-o", str(path))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == (
        f"The report is in {path}.\n"
        "Left out: names of users (user1, ...); paths below home directories.\n"
        "Look through it before you show it to anybody.\n"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == (await command("report")).out == (await command("report", "-o", "-")).out


async def test_report_as_json(daemon: FakeDaemon, command: Command, tmp_path: Path) -> None:
    (document,) = (await command("report", "--json")).documents
    assert document["machine"] == {"text": EVIL}
    path = tmp_path / "report.json"
    (told,) = (await command("report", "--json", "-o", str(path))).documents
    assert told == {"report": str(path), "left-out": REPORT["left-out"], "notes": REPORT["notes"]}
    assert json.loads(path.read_text()) == document


async def test_a_report_that_cannot_be_written(daemon: FakeDaemon, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "report"
    ended = await command("report", "-o", str(path))
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"gpuhandoff: The report cannot be written to {path}: No such file or directory.\n"
    assert os.listdir(tmp_path) == []
