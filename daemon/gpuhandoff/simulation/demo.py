"""The main job, as a person would do it, on a simulated machine: `./run demo`.

A private message bus, the real daemon with --simulate, the real command. Ends with 0 only when the machine is as it was
in the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuhandoff.messages import Bus
from gpuhandoff.names import BUS_NAME, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.service.bus import connect
from gpuhandoff.simulation.daemon import NAME, PATH
from gpuhandoff.simulation.scenarios import GPU, SCENARIOS
from gpuhandoff.simulation.snapshot import differences

READY_SECONDS = 60.0
SETTLE_SECONDS = 5.0
"""How long the machine may take for what nobody waits for: alice's session, sound."""

LOOK = 0.1
"""Seconds between looks."""

BUS_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that happens: a command and the exit status it should have, or an event on the simulated machine."""

    story: str
    command: Sequence[str] = ()
    event: str = ""
    state: str = ""
    """The GPU's state that the daemon sees after an event."""
    status: int = 0


REFUSED = 3
"""The command's exit status for what the daemon refuses (gpuhandoff(1))."""

SHOWS_DESKTOP = (
    Act("What would a handoff do, and cost?", ("plan", "--stop-display")),
    Act("It shows alice's desktop, so it is not taken without being told so.", ("handoff",), status=REFUSED),
    Act("Lend it all the same: the desktop ends.", ("handoff", "--stop-display")),
)
IDLE = (
    Act("What would a handoff do, and cost?", ("plan",)),
    Act("Nobody uses the second card: lend it, the desktop stays.", ("handoff",)),
)
LENDING = {"single-nvidia": SHOWS_DESKTOP, "single-amd": SHOWS_DESKTOP, "blackwell": SHOWS_DESKTOP, "igpu-dgpu": IDLE}
"""The scenarios that can be played, and how the GPU is lent there."""


def acts(scenario: str) -> tuple[Act, ...]:
    """Return what happens, in order."""
    return (
        Act("Where is the GPU?", ("status",)),
        *LENDING[scenario],
        Act("A virtual machine starts with the GPU.", event="StartGuest", state="guest"),
        Act("Where is it now?", ("status",)),
        Act("It is not torn away from a running guest.", ("reclaim",), status=REFUSED),
        Act("The virtual machine is shut down.", event="StopGuest", state="detached"),
        Act("Take it back.", ("reclaim",)),
        Act("And now?", ("status",)),
    )


class Demo:
    """The stage: the bus and the daemon run, the acts follow."""

    def __init__(self, bus: Bus, environment: dict[str, str]) -> None:
        self._bus = bus
        self._environment = environment

    async def play(self, scenario: str) -> int:
        """Play every act; return the exit status."""
        before = await self._snapshot()
        for act in acts(scenario):
            if not await self._play(act):
                say(f"\nThis should have ended with status {act.status}.")
                return 1
        return await self._compare(before)

    async def _play(self, act: Act) -> bool:
        say(f"\n# {act.story}")
        if act.event:
            await self._bus.call(NAME, PATH, NAME, act.event, "s", (GPU,))
            return await self._seen(act.state)
        say(f"$ gpuhandoff {' '.join(act.command)}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gpuhandoff_command", *act.command),
            env=self._environment,
            stderr=asyncio.subprocess.STDOUT if not sys.stdout.isatty() else None,
        )
        return await process.wait() == act.status

    async def _seen(self, state: str) -> bool:
        """Look until the daemon has seen what happened."""
        for _ in range(int(SETTLE_SECONDS / LOOK)):
            (reply,) = await self._bus.call(BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Status")
            if reply[GPU].value["state"].value == state:
                return True
            await asyncio.sleep(LOOK)
        return False

    async def _compare(self, before: Any) -> int:
        """Look until the machine is as it was, or too much time has passed."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + SETTLE_SECONDS
        found = differences(before, await self._snapshot())
        while found and loop.time() < ends:
            await asyncio.sleep(LOOK)
            found = differences(before, await self._snapshot())
        if found:
            say("\nThe machine is not as it was:")
            for line in found:
                say(f"  {line}")
            return 1
        counts = f"{len(before['functions'])} PCI functions, {len(before['modules'])} modules, {len(before['units'])} units"
        say(f"\nThe machine is exactly as it was: {counts}, {len(before['processes'])} processes compared.")
        return 0

    async def _snapshot(self) -> Any:
        (text,) = await self._bus.call(NAME, PATH, NAME, "Snapshot")
        return json.loads(text)


async def play(scenario: str) -> int:
    """Build the stage, play, clear up."""
    say(f"A simulated machine ({scenario}): {(SCENARIOS[scenario].__doc__ or '').splitlines()[0]}")
    say("Nothing of this machine is touched.")
    with tempfile.TemporaryDirectory(prefix="gpuhandoff-demo-") as name:
        directory = Path(name)
        address = f"unix:path={directory / 'bus'}"
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address}
        configuration = directory / "bus.conf"
        configuration.write_text(BUS_CONFIGURATION.format(socket=directory / "bus"), encoding="utf-8")
        daemon = (sys.executable, "-m", "gpuhandoff", "--simulate", scenario)
        async with (
            running(("dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"), "unix:", environment),
            running(daemon, "ready:", environment) as log,
        ):
            bus = await connect(address)
            status = await Demo(bus, environment).play(scenario)
            await bus.close()
            if status:
                say(f"\nThe daemon's log:\n{''.join(log)}")
            return status


@contextlib.asynccontextmanager
async def running(command: Sequence[str], ready: str, environment: dict[str, str]) -> AsyncIterator[list[str]]:
    """Run a program from the moment it prints `ready` until the end; gives what it prints."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    lines: list[str] = []
    is_ready = asyncio.Event()
    reader = asyncio.create_task(read(process, lines, ready, is_ready))
    try:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await is_ready.wait()
        except TimeoutError as error:
            said = "".join(lines) or "It has said nothing."
            raise SystemExit(f"{' '.join(command)} was not ready within {READY_SECONDS:g} s. {said}") from error
        yield lines
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await reader


async def read(process: asyncio.subprocess.Process, lines: list[str], ready: str, is_ready: asyncio.Event) -> None:
    """Collect what a program prints, and note when it says that it is ready."""
    if process.stdout is None:
        return
    async for line in process.stdout:
        lines.append(line.decode(errors="replace"))
        if ready in lines[-1]:
            is_ready.set()


def say(text: str) -> None:
    """Print at once, in order with what the programs print."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Play the scenario that is asked for."""
    parser = argparse.ArgumentParser(prog="demo", description="Lend a simulated GPU to a guest and take it back.")
    parser.add_argument("scenario", nargs="?", default="single-nvidia", choices=LENDING)
    return asyncio.run(play(parser.parse_args().scenario))


if __name__ == "__main__":
    sys.exit(main())
