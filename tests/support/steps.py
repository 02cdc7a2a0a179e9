"""Steps on a simulated machine, each undone by a daemon that has just started."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from gpuhandoff.host import Host
from gpuhandoff.model.plan import Json
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.steps import Step, make_steps

SETTLE = 5.0
"""Seconds of the machine's time in which sessions and sound cards are there again."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A step whose values are in the journal."""

    name: str
    arguments: Json
    saved: Json


class StepBench:
    """A machine, and what a journal would say about the steps taken on it."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self.machine = machine
        self.broker = LoopbackBroker()
        self.begun: list[Begun] = []
        self.steps = make_steps()

    @classmethod
    async def of(cls, machine: SimulatedMachine) -> StepBench:
        """Return a bench whose stand-ins answer."""
        bench = cls(machine)
        await machine.serve(bench.broker)
        bench.host = bench.new_host()
        return bench

    host: Host

    def new_host(self) -> Host:
        """Return what another daemon sees of the machine."""
        return simulated_host(self.machine, self.broker.connect())

    def step(self, name: str) -> Step:
        """Return a step of the daemon that runs."""
        return self.steps[name]

    async def capture(self, name: str, arguments: Json) -> Begun:
        """Capture; arguments and captured values pass through JSON as in a journal."""
        arguments = _through_json(arguments)
        saved = await self.step(name).capture(self.host, arguments)
        begun = Begun(name, arguments, _through_json(saved))
        assert begun.saved == saved
        self.begun.append(begun)
        return begun

    async def apply(self, name: str, arguments: Json) -> Begun:
        """Capture and apply."""
        begun = await self.capture(name, arguments)
        await self.step(name).apply(self.host, begun.arguments, begun.saved)
        return begun

    async def holds(self) -> bool:
        """Tell whether the latest step is in effect."""
        begun = self.begun[-1]
        return await self.step(begun.name).holds(self.host, begun.arguments, begun.saved)

    async def undo_latest(self) -> None:
        """Undo the latest step, which stays begun, in a daemon that knows nothing but the journal."""
        begun = self.begun[-1]
        await make_steps()[begun.name].undo(self.new_host(), begun.arguments, begun.saved)

    async def undo(self) -> None:
        """Undo everything in reverse."""
        while self.begun:
            await self.undo_latest()
            self.begun.pop()

    async def settle(self) -> None:
        """Let the machine finish what it does by itself."""
        await asyncio.sleep(SETTLE)


def _through_json(value: Json) -> dict[str, Any]:
    return dict(json.loads(json.dumps(value)))
