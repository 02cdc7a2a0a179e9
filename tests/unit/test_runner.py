"""The runner, with steps that only write down what is asked of them: order, rollback, cancellation, recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

import pytest

from gpuhandoff.errors import (
    CancelledJobError,
    InUseError,
    ProblemError,
    RolledBackError,
    StuckError,
    TimedOutError,
)
from gpuhandoff.host import Host, OpenNode, OverdueError, Pending, Purpose
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.plan import Json, Plan, PlannedStep
from gpuhandoff.model.request import Operation
from gpuhandoff.model.world import Process
from gpuhandoff.transaction.journal import JournalDirectory
from gpuhandoff.transaction.recovery import Recovery
from gpuhandoff.transaction.runner import CARD as CARD_LANE
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


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("gpuhandoff.transaction.runner.PAUSE", 0)
    return Bench(tmp_path)


async def test_a_handoff_applies_in_order_and_stays_open(bench: Bench) -> None:
    await bench.run()
    assert [call for call in bench.calls if call.startswith("apply")] == [f"apply {name}" for name in NAMES]
    record = bench.journals.record(CARD)
    assert record is not None
    assert record.complete
    assert bench.effects == set(NAMES)
    assert bench.seen[0] == ("inhibit", "apply", 1, 5)
    assert bench.seen[-1] == ("confine", "done", 5, 5)


async def test_reclaim_undoes_in_reverse_and_forgets(bench: Bench) -> None:
    await bench.run()
    await bench.undo()
    assert bench.undone() == NAMES[::-1]
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_another_plan_leaves_no_journal(bench: Bench) -> None:
    await bench.run(Operation.RECLAIM)
    assert bench.journals.addresses() == []


@pytest.mark.parametrize("moment", ["capture", "apply"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(16, "busy"), RolledBackError),
        (InUseError("Held by x."), InUseError),
        (RuntimeError("bug"), RolledBackError),
    ],
)
async def test_whatever_fails_everything_is_undone(
    bench: Bench, moment: str, name: str, error: BaseException, expected: type[ProblemError]
) -> None:
    bench.steps[name].trouble[moment] = lambda: error
    with pytest.raises(expected, match="put back as it was"):
        await bench.run()
    begun = NAMES[: NAMES.index(name) + (moment == "apply")]
    assert bench.undone() == begun[::-1]
    assert bench.effects == set()
    assert bench.journals.addresses() == []


@pytest.mark.parametrize("name", NAMES)
async def test_cancelled_in_any_step(bench: Bench, name: str) -> None:
    task = asyncio.create_task(bench.run())

    def cancel() -> None:
        task.cancel()

    bench.steps[name].trouble["apply"] = cancel
    original = bench.steps[name]._meet

    async def meet(moment: str) -> None:
        await original(moment)
        await asyncio.sleep(0)

    bench.steps[name]._meet = meet  # type: ignore[method-assign]
    with pytest.raises(CancelledJobError):
        await task
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_out_of_time(bench: Bench) -> None:
    async def never(host: Host, arguments: Json, saved: Json) -> None:
        await asyncio.Event().wait()

    bench.steps["bind"].apply = never  # type: ignore[method-assign]
    with pytest.raises(TimedOutError, match=r"0\.05 s"):
        await bench.run(timeout=0.05)
    assert bench.effects == set()


UNBIND = "unbind of 0000:01:00.1"


def hang(bench: Bench, lane: str, operation: str = UNBIND) -> Callable[[], OverdueError]:
    """Return what makes an operation hang in the kernel."""

    def overdue() -> OverdueError:
        bench.fake.hanging = [Pending(Purpose(str(CARD), lane), operation, 5, 77, "D", "snd_card_free")]
        return OverdueError(operation, 5, 77, "D", "snd_card_free")

    return overdue


async def test_an_operation_that_hangs_on_the_gpu_leaves_the_gpu_alone(bench: Bench) -> None:
    bench.steps["claim"].trouble["apply"] = hang(bench, CARD_LANE)
    bench.fake.open = (OpenNode(Process(431, 9, "arecord", 1000), ("/dev/snd/controlC1",)),)
    with pytest.raises(StuckError, match="snd_card_free") as caught:
        await bench.run()
    assert "stuck at claim" in caught.value.message
    assert "arecord (pid 431) has /dev/snd/controlC1 open" in caught.value.message
    assert "switching the power off" in caught.value.message
    assert bench.undone() == ["inhibit"]
    record = bench.journals.record(CARD)
    assert record is not None
    assert record.stuck == caught.value.message
    bench.steps["claim"].trouble.clear()
    with pytest.raises(StuckError):
        await bench.undo()
    assert bench.undone() == ["inhibit"]
    bench.fake.hanging = []
    await bench.undo()
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_an_operation_that_was_overdue_and_has_ended_meanwhile_is_rolled_back(bench: Bench) -> None:
    bench.steps["claim"].trouble["apply"] = lambda: OverdueError(UNBIND, 5, 77)
    with pytest.raises(TimedOutError, match="put back as it was"):
        await bench.run()
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_an_operation_that_hangs_elsewhere_is_an_ordinary_failure(bench: Bench) -> None:
    bench.steps["confine"].trouble["apply"] = hang(bench, "free-memory", "sync")
    with pytest.raises(TimedOutError):
        await bench.run()
    assert bench.effects == set()


@pytest.mark.parametrize("name", NAMES)
async def test_what_cannot_be_undone_is_named_and_tried_again(bench: Bench, name: str) -> None:
    await bench.run()
    bench.steps[name].trouble["undo"] = lambda: InUseError("x (pid 9) has it open.")
    with pytest.raises(StuckError, match=rf"{name}: x \(pid 9\) has it open"):
        await bench.undo()
    assert name in bench.effects
    assert "confine" not in bench.effects or name == "confine"
    assert "inhibit" not in bench.effects or name == "inhibit"
    bench.steps[name].trouble.clear()
    await bench.undo()
    assert bench.effects == set()
    assert bench.journals.addresses() == []


class Killed(BaseException):
    """The daemon is gone between two instructions: nothing after it runs."""


async def kill_at(bench: Bench, line: int, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run `work` until the journal's `line`-th append; True when it was killed there."""
    from gpuhandoff.transaction.journal import Journal

    count = 0
    original = Journal.append

    def append(self: Journal, **what: Any) -> None:
        nonlocal count
        original(self, **what)
        count += 1
        if count == line:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        try:
            await work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("line", range(1, 14))
async def test_killed_after_any_journal_line_of_a_handoff(bench: Bench, line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = await kill_at(bench, line, bench.run, monkeypatch)
    assert killed == (line <= 2 + 2 * len(NAMES))
    await bench.recover()
    record = bench.journals.record(CARD)
    if record is not None:
        assert record.complete
        assert bench.effects == set(NAMES)
    else:
        assert bench.effects == set()
    assert (record is not None) == (line >= 2 + 2 * len(NAMES))


@pytest.mark.parametrize("line", range(1, 8))
async def test_killed_after_any_journal_line_of_a_reclaim(bench: Bench, line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.run()
    killed = await kill_at(bench, line, bench.undo, monkeypatch)
    assert killed == (line <= 1 + len(NAMES))
    await bench.recover()
    assert bench.effects == set()
    assert bench.journals.addresses() == []


@pytest.mark.parametrize("name", NAMES)
async def test_an_undo_that_is_refused_for_a_moment_is_tried_once_more(bench: Bench, name: str) -> None:
    await bench.run()
    refusals: list[BaseException | None] = [OSError(16, "busy")]
    bench.steps[name].trouble["undo"] = lambda: refusals.pop() if refusals else None
    await bench.undo()
    assert [undone for undone in bench.undone() if undone == name] == [name, name]
    assert bench.effects == set()
    assert bench.journals.addresses() == []


async def test_an_undo_that_hangs_is_not_tried_again(bench: Bench) -> None:
    await bench.run()
    bench.steps["bind"].trouble["undo"] = hang(bench, CARD_LANE)
    with pytest.raises(StuckError):
        await bench.undo()
    assert bench.undone().count("bind") == 1


async def test_what_ended_with_the_daemon_is_renewed(bench: Bench) -> None:
    await bench.run()
    bench.effects.discard("inhibit")
    await bench.recover()
    assert "inhibit" in bench.effects


async def test_a_journal_of_another_boot_is_forgotten(bench: Bench) -> None:
    await bench.run()
    recovery = Recovery(bench.host, bench.journals, bench.runner, bench.steps)
    assert recovery.found("another boot") == []
    assert bench.journals.addresses() == []


async def test_no_journal_no_step(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / f"{CARD}.journal").touch()
    with pytest.raises(ProblemError, match="Nothing was begun"):
        await bench.run()
    assert bench.calls == []
