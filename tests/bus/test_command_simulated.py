"""The command against the real daemon over a simulated machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.bus import PATIENCE, private_bus
from tests.support.command_daemon import Command


@asynccontextmanager
async def simulated(scenario: str, *words: str) -> AsyncIterator[Command]:
    """Have a daemon on a bus of its own, and the command for it."""
    with private_bus() as bus:
        command = Command(bus.address)
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gpuhandoff", "--simulate", scenario, *words,
            env=command.environment, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert daemon.stderr is not None
            while b"ready:" not in await asyncio.wait_for(daemon.stderr.readline(), PATIENCE):
                pass
            yield command
        finally:
            daemon.terminate()
            await daemon.communicate()


async def state(command: Command) -> str:
    (document,) = (await command("status", "--json")).documents
    return str(document["gpus"][0]["state"])


async def test_there_and_back_with_one_gpu() -> None:
    async with simulated("single-nvidia") as command:
        assert "allow it with the option --stop-display" in (await command("status")).out
        refused = await command("handoff")
        assert refused.status == 3
        assert "the graphical session of alice ends" in refused.err
        plan = await command("plan", "--stop-display", "--json")
        steps = [step["step"] for step in plan.documents[0]["steps"]]
        lent = await command("handoff", "--stop-display", "--vm", "win11", "--json")
        done = [one["step"] for one in lent.documents if one["event"] == "step" and one["phase"] == "done"]
        assert (lent.status, done) == (0, steps)
        assert "  lent to    win11\n" in (await command("status")).out
        assert (await command("handoff", "--stop-display")).status == 3
        way_back = (await command("plan", "--reclaim")).out
        assert way_back.startswith("asks for    taking a GPU back (org.gpuhandoff.reclaim)\ntakes       ")
        assert way_back.count("\n") == len(steps) + 5
        back = await command("reclaim")
        assert (back.status, back.err) == (0, "")
        assert back.out.endswith("0000:01:00.0 is back with the host.\n")
        assert await state(command) == "host"
        assert (await command("reclaim")).status == 3


async def test_two_gpus() -> None:
    async with simulated("igpu-dgpu") as command:
        ambiguous = await command("handoff", "09:00.0")
        assert (ambiguous.status, "no GPU at 0000:09:00.0" in ambiguous.err) == (3, True)
        (document,) = (await command("status", "--json")).documents
        (address,) = [gpu["address"] for gpu in document["gpus"] if not gpu["drives-display"]]
        ran = await command("run", "--gpu", address.removeprefix("0000:"), "--", "sh", "-c", "echo running; exit 7")
        assert (ran.status, ran.err) == (7, "")
        assert f"{address} is ready for the guest.\nrunning\n" in ran.out
        assert ran.out.endswith(f"{address} is back with the host.\n")


async def test_what_happened_and_a_report_of_it() -> None:
    async with simulated("single-nvidia") as command:
        assert (await command("history")).out == "Nothing has been done yet.\n"
        assert (await command("handoff")).status == 3
        assert (await command("handoff", "--stop-display", "--vm", "win11")).status == 0
        history = await command("history")
        assert (history.status, history.err) == (0, "")
        lent, refused = [line for line in history.out.splitlines() if not line.startswith(" ")]
        assert "01:00.0  lend to win11  ✓ done, " in lent
        assert refused.endswith("01:00.0  lend           ✗ refused")
        assert "the graphical session of alice ends" in history.out
        report = await command("report")
        assert (report.status, report.err) == (0, "")
        assert "lend to vm1  ✓ done" in report.out
        assert not [name for name in ("alice", "win11") if name in report.out]
        named = await command("report", "--names", "--json")
        assert named.documents[0]["history"][0]["vm"] == "win11"
        assert any("bind-vfio" in line for line in named.documents[0]["log"])
        assert (await command("reclaim")).status == 0


async def test_a_lease_that_is_killed_gives_the_gpu_back() -> None:
    async with simulated("igpu-dgpu") as command:
        (document,) = (await command("status", "--json")).documents
        (address,) = [gpu["address"] for gpu in document["gpus"] if not gpu["drives-display"]]
        watching = await command.start("watch", "--json")
        process = await command.start("run", "--gpu", address, "--", "sh", "-c", "echo running; sleep 1")
        assert process.stdout is not None
        while await process.stdout.readline() != b"running\n":
            pass
        process.kill()
        await process.communicate()
        assert watching.stdout is not None
        ended = 0
        while ended < 2:  # the handoff, then the daemon's own reclaim
            line = await asyncio.wait_for(watching.stdout.readline(), PATIENCE)
            ended += b'"JobRemoved"' in line
        assert b'"result": "done"' in line
        watching.terminate()
        await command.finish(watching)
        (document,) = (await command("status", "--json")).documents
        assert {gpu["state"] for gpu in document["gpus"]} == {"host"}


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (("handoff", "nonsense"), "gpu: 'nonsense' is not a PCI address such as 0000:01:00.0."),
        (
            ("handoff", "--cpus", "0-99999"),
            "cpus: a list of CPUs from 0 to 8191, such as 0-3,8, is expected, not '0-99999'.",
        ),
        (("handoff", "--vm", "x" * 129), "vm: a name of at most 128 printable characters is expected"),
        (("plan", "--cpus", "8191", "--stop-display"), "cpus: CPU 8191 is not one of this machine's online CPUs."),
    ],
)
async def test_wrong_usage_is_told_by_the_daemon(words: tuple[str, ...], mistake: str) -> None:
    async with simulated("single-nvidia") as command:
        ended = await command(*words)
        assert ended.status == 2
        assert ended.err.startswith(f"gpuhandoff: {mistake}")


async def test_denied() -> None:
    async with simulated("igpu-dgpu", "--simulate-deny", "org.gpuhandoff.handoff") as command:
        ended = await command("handoff", "--no-ask")
        assert ended.status == 4
        assert ended.err.startswith("gpuhandoff: Access denied: ")
        assert (await command("run", "echo", "ran")).out == ""
