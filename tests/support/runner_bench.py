"""A runner over steps that only write down what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

from gpuhandoff.host import Host, OpenNode, Pending, Purpose
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.plan import Json, Plan, PlannedStep
from gpuhandoff.model.request import Operation
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.recovery import Recovery
from gpuhandoff.transaction.runner import Runner, Terms

CARD = PciAddress(0, 1, 0, 0)
NAMES = ["inhibit", "display", "claim", "bind", "confine"]


class Fake:
    """A host on which nothing is done; `hanging` is what the kernel has not finished."""

    def __init__(self) -> None:
        self.hanging: list[Pending] = []
        self.open: tuple[OpenNode, ...] = ()

    def on_behalf(self, purpose: Purpose) -> Fake:
        return self

    @property
    def kernel(self) -> Fake:
        return self

    processes = kernel

    def pending(self, purpose: Purpose) -> tuple[Pending, ...]:
        return tuple(one for one in self.hanging if purpose.waits_for(one.purpose))

    async def settled(self, gpu: str) -> None:
        assert not self.hanging

    async def holding(self, nodes: Collection[str]) -> tuple[OpenNode, ...]:
        return tuple(one for one in self.open if set(one.nodes) & set(nodes))


class Note:
    """A step that keeps its effect in a shared set and its calls in a shared list."""

    def __init__(self, name: str, effects: set[str], calls: list[str], *, needs_gpu: bool, volatile: bool = False) -> None:
        self.name = name
        self.needs_gpu = needs_gpu
        self.has_undo = True
        self.volatile = volatile
        self.effects = effects
        self.calls = calls
        self.trouble: dict[str, Callable[[], BaseException | None]] = {}

    async def _meet(self, moment: str) -> None:
        self.calls.append(f"{moment} {self.name}")
        await asyncio.sleep(0)
        error = self.trouble.get(moment, lambda: None)()
        if error is not None:
            raise error

    async def capture(self, host: Host, arguments: Json) -> Json:
        await self._meet("capture")
        return {"before": self.name in self.effects, "number": arguments["number"]}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        self.effects.add(self.name)
        await self._meet("apply")

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        assert saved == {"before": False, "number": arguments["number"]}
        await self._meet("undo")
        self.effects.discard(self.name)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        return self.name in self.effects


class Bench:
    """A runner over such steps; a new one on the same directory is a daemon that was started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fake = Fake()
        self.host = cast("Host", self.fake)
        self.effects: set[str] = set()
        self.calls: list[str] = []
        self.steps = {
            name: Note(
                name,
                self.effects,
                self.calls,
                needs_gpu=name in {"display", "claim", "bind"},
                volatile=name == "inhibit",
            )
            for name in NAMES
        }
        self.journals = JournalDirectory(directory)
        self.runner = Runner(self.host, self.journals, self.steps)
        self.seen: list[tuple[str, str, int, int]] = []

    async def run(self, operation: Operation = Operation.HANDOFF, timeout: float = 0) -> None:
        steps = tuple(PlannedStep(name, {"number": index}, f"do {name}") for index, name in enumerate(NAMES))
        terms = Terms(boot_id="b", job=1, vm="win11", timeout=timeout)
        await self.runner.run(Plan(operation, CARD, steps, ("/dev/snd/controlC1",)), terms, self.observe)

    async def undo(self) -> None:
        await self.runner.undo(CARD, "reclaim", self.observe)

    async def recover(self) -> None:
        recovery = Recovery(self.host, self.journals, self.runner, self.steps)
        for gpu in recovery.found("b"):
            await recovery.recover(gpu, self.observe)

    def observe(self, *seen: Any) -> None:
        self.seen.append(cast("tuple[str, str, int, int]", seen))

    def undone(self) -> list[str]:
        return [call.removeprefix("undo ") for call in self.calls if call.startswith("undo ")]
