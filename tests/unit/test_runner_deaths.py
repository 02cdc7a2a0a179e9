"""The runner and its successor: killed after any line, recovered, or with another boot's journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.errors import (
    ProblemError,
)
from gpuhandoff.transaction.recovery import Recovery
from tests.support.runner_bench import CARD, NAMES, Bench


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
