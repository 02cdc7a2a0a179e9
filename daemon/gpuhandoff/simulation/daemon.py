"""gpuhandoffd --simulate: the real daemon, on a real bus, over a simulated machine."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpuhandoff.config import Configuration
from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.messages import Bus, Call, RemoteError, Reply
from gpuhandoff.names import HOOK_PATTERNS
from gpuhandoff.service.bus import connect
from gpuhandoff.service.daemon import Setting
from gpuhandoff.service.plain_log import PlainFormatter
from gpuhandoff.service.recent import RecentLines
from gpuhandoff.service.serving import serve
from gpuhandoff.simulation.archive import SimulatedArchive
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.replay import ReplayError, read_report, replay
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.trouble import Trouble

NAME = "org.gpuhandoff.Simulation"
PATH = "/org/gpuhandoff/Simulation"
OPERATIONS = 1000
"""Of the machine's operations, so many are remembered."""

log = logging.getLogger(__name__)


async def run_simulated(scenario: str, *, deny: Sequence[str]) -> int:
    """Serve a simulated machine on the bus at DBUS_SYSTEM_BUS_ADDRESS until SIGTERM; return the exit status."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    recent = RecentLines()
    logging.getLogger().addHandler(recent)
    try:
        machine = await _machine(scenario)
    except ReplayError as error:
        log.error("%s", error)
        return 2
    if machine is None:
        log.error("there is no scenario %s; scenarios: %s, or a report's file", scenario, ", ".join(SCENARIOS))
        return 2
    stopping, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    machine.polkit.denied.update(deny)
    machine.faults.remembered = OPERATIONS
    try:
        await machine.attach(await connect(), await connect(descriptors=True), await connect())
        await _Outside(machine).attach(await connect())
        bus = await connect()
    except RemoteError as error:
        log.error("the bus for the simulation cannot be used: %s", error.message)
        return 1
    with tempfile.TemporaryDirectory(prefix="gpuhandoff-") as directory:
        runtime, state = Path(directory, "run"), Path(directory, "state")
        archive = SimulatedArchive(machine, recent.lines)
        patterns = runtime / Path(HOOK_PATTERNS).name
        setting = Setting(bus, simulated_host(machine, bus), runtime, Configuration, state, archive, hook_patterns=patterns)
        return await serve(setting, ready=lambda status: log.info("ready: %s", status), stopping=stopping, reload=reload)


async def _machine(scenario: str) -> SimulatedMachine | None:
    """Return the machine of that name, or that of a report; raises ReplayError."""
    build = SCENARIOS.get(scenario)
    if build is not None:
        return await build()
    return await replay(read_report(Path(scenario))) if scenario.endswith(".json") or "/" in scenario else None


class _Outside:
    """What happens to the simulated machine from outside: guests come and go, and somebody looks at it."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._trouble = Trouble(machine)

    async def attach(self, bus: Bus) -> None:
        """Answer on a bus."""
        bus.serve(self._answer)
        await bus.request_name(NAME)

    async def _answer(self, call: Call) -> Reply:
        match call.member, call.body:
            case "Snapshot", ():
                return Reply("s", (json.dumps(self._machine.snapshot(), sort_keys=True, default=str),))
            case "StartGuest", (str(gpu),):
                try:
                    self._machine.start_guest(gpu)
                except OSError as error:
                    raise InvalidArgsError(f"The guest cannot start: {error}.") from error
                return Reply()
            case "StopGuest", (str(gpu),):
                self._machine.stop_guest(gpu)
                return Reply()
        return self._trouble.answer(call)
