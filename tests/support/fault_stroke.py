"""The one fault of a case, and the daemon's death: when they strike, and at what."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from gpuhandoff.service.daemon import Daemon
from gpuhandoff.simulation.faults import Effect, Hang, Operation, Perform
from gpuhandoff.simulation.lives import KilledError
from gpuhandoff.transaction.journal import Journal
from tests.support import fault_effects
from tests.support.fault_case import Case, Done
from tests.support.product import Product

TRIGGER = "/nr_hugepages"
"""What a handoff fails at whose rollback is to be struck, or that is to be recovered from."""


class Stroke:
    """Watches a product's operations and journal lines, and strikes once."""

    def __init__(self, case: Case, product: Product) -> None:
        self.case = case
        self.product = product
        self.struck = False
        self.places: list[tuple[str, str]] = []
        """The steps and phases that were struck: more than one where the fault lasts."""
        self.seen: list[Done] = []
        self.hang: Hang | None = None
        self.judging = False
        """Whether the test asks for itself: that strikes nobody."""
        self.will_kill = False
        """Whether the daemon dies when an operation that still runs has ended."""
        self._step, self._phase = "", ""
        self._counts: Counter[Operation] = Counter()
        self._armed = ""
        self._noting = False
        self._waits_for_trigger = False
        product.on_start = self._follow
        self._follow(product.daemon)

    @property
    def missed(self) -> bool:
        """Whether there was something to strike with, and it never did."""
        return bool(self.case.operation.kind) and (self._armed != "" or not self.struck)

    def begin(self, *, after_trigger: bool) -> None:
        """Note what is done from now on, or from the trigger on, and strike there."""
        self._set_fault()
        self.product.machine.faults.on_operation = self._on_operation
        self._waits_for_trigger = after_trigger
        self._noting = not after_trigger

    def end(self) -> None:
        """Note no longer."""
        self._noting = False

    def disarm(self) -> None:
        """Kill nobody any more."""
        self._armed = ""

    @contextlib.contextmanager
    def watching_lines(self) -> Iterator[None]:
        """Decide meanwhile about every line of any journal."""
        append, stroke = Journal.append, self

        def appended(self: Journal, **line: Any) -> None:
            stroke._on_line(lambda: append(self, **line))

        Journal.append = appended  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.disarm()
            Journal.append = append  # type: ignore[method-assign]

    def _set_fault(self) -> None:
        case, machine = self.case, self.product.machine
        if not case.operation.kind:
            return
        inner, self.hang = fault_effects.make(machine, case.operation, case.fault)
        nth = -case.nth if case.fault.endswith(" always") else case.nth
        machine.faults.set(self._effect(inner), nth=nth, when=self._concerns)

    def _concerns(self, operation: Operation) -> bool:
        """Tell the operation of the case; what we ask ourselves in order to judge is none."""
        if self.judging or not (self._noting or self.struck):
            return False
        return _lasting(operation) == self.case.operation

    def _effect(self, inner: Effect) -> Effect:
        async def effect(perform: Perform) -> Any:
            self.places.append((self._step, self._phase))
            if self.struck:
                return await inner(perform)
            self.struck = True
            match self.case.moment:
                case "before":
                    self.product.kill()
                    return None
                case "during":
                    self.product.kill()
                case "after":
                    self.will_kill = True
                    try:
                        return await inner(perform)
                    finally:
                        self.will_kill = False
                        self.product.kill()
                case moment:
                    self._armed = moment
            return await inner(perform)

        return effect

    def _on_operation(self, operation: Operation) -> None:
        if self._waits_for_trigger and operation.target.endswith(TRIGGER):
            self._waits_for_trigger, self._noting = False, True
            return
        operation = _lasting(operation)
        if self._noting:
            self._counts[operation] += 1
            self.seen.append(Done(operation, self._counts[operation], self._step, self._phase))
        if self._armed == "undo" and self._phase == "undo":
            self._armed = ""
            self.product.kill()

    def _on_line(self, write: Callable[[], None]) -> None:
        if self._armed == "unwritten":
            self._armed = ""
            self.product.kill()
            raise KilledError
        write()
        if self._armed == "written":
            self._armed = ""
            self.product.kill()
            raise KilledError

    def _follow(self, daemon: Daemon | None) -> None:
        """Know which step a daemon is at."""
        if daemon is None:
            return
        observe = daemon.jobs.observe

        def follow(job: Any, step: str, phase: str, index: int, count: int) -> None:
            self._step, self._phase = step, phase
            observe(job, step, phase, index, count)

        daemon.jobs.observe = follow  # type: ignore[method-assign]


def _lasting(operation: Operation) -> Operation:
    """Return an operation without the number that polkit's questions carry."""
    return replace(operation, detail=_QUESTION.sub("", operation.detail))


_QUESTION = re.compile(r" gpuhandoff-\d+-\d+$")
