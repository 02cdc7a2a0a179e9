"""All cases, which of them are chosen, and the processes that try them.

.venv/bin/python -m tests.support.fault_matrix SCENARIO DIRECTION [PART OF] tries cases and prints what came of them
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from gpuhandoff.simulation.clock import run
from gpuhandoff.transaction import journal
from gpuhandoff.transaction.record import parse
from tests.support import fault_effects
from tests.support.fault_case import MOMENTS, NOTHING, Case, Done
from tests.support.fault_trial import Trial

ALL = "GPUHANDOFF_TEST_ALL"
"""Set to try the complete cross product."""
MACHINES = ("single-nvidia", "single-amd", "igpu-dgpu", "twin", "blackwell")
KILLS = tuple(moment for moment in MOMENTS if moment)


@dataclass(slots=True)
class Result:
    """What came of many cases."""

    ends: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Count the other's as well."""
        self.ends += other.ends
        self.failures += other.failures

    def as_plain(self) -> dict[str, Any]:
        """Return what one process can tell another."""
        return {"ends": dict(self.ends), "failures": self.failures}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Result:
        """Return what another process has told."""
        return cls(Counter(plain["ends"]), list(plain["failures"]))

    def __str__(self) -> str:
        """Return the counts as one line; `missed` are cases whose fault or kill never came to pass: they say nothing."""
        restored, done, stuck = (self.ends[end] for end in ("restored", "done", "stuck"))
        total = restored + done + stuck + len(self.failures)
        return (
            f"fault matrix: {total:,} cases: {restored:,} restored, {done:,} done, {stuck:,} stuck with the right cause"
            + (f", {len(self.failures):,} NOT AS THEY SHOULD" if self.failures else "")
        )


def total(results: Iterable[Result]) -> Result:
    """Count all of them as one."""
    sum_of_all = Result()
    for result in results:
        sum_of_all.add(result)
    return sum_of_all


@cache
def operations(scenario: str, direction: str) -> tuple[Done, ...]:
    """Return every operation that a move without faults makes."""
    with _directory() as directory:
        trial = Trial(Case(scenario, direction, NOTHING, 0), Path(directory) / "run")
        run(trial.run())
    return tuple(trial.stroke.seen)


def everything(scenario: str, direction: str) -> Iterator[Case]:
    """Yield the complete cross product: operation by fault by moment, and every operation without a fault but a kill."""
    for done in operations(scenario, direction):
        for fault in ("", *fault_effects.names(done.operation)):
            for moment in MOMENTS:
                if makes_sense(fault, moment):
                    yield Case(scenario, direction, done.operation, done.nth, fault, moment)


def makes_sense(fault: str, moment: str) -> bool:
    """Tell a case from one that is the same as another or cannot be: what hangs for ever has no `after`."""
    if not fault:
        return moment not in {"", "undo"}
    if moment == "before":
        return False
    return not (fault.startswith("hang") and moment == "after")


def chosen(scenario: str, direction: str) -> Iterator[Case]:
    """Yield what is tried every day: a choice that moves on from one operation to the next.

    An operation that changes something suffers every kind of fault with a living daemon, but of all errnos one, and two
    kills at two moments with two other faults. One that only looks suffers a fault or a kill. Where everything is undone
    as in a Reclaim, only for another reason, on the second machine of the same kind, and where an earlier machine makes the
    same operation in the same step, it is two faults and a kill, and half of the operations that only look.
    """
    offset = sum(map(ord, scenario + direction))
    seen: set[Done] = set()
    if direction in {"handoff", "reclaim"}:
        seen.update(*(operations(one, direction) for one in MACHINES[: MACHINES.index(scenario)]))
    for number, done in enumerate(operations(scenario, direction), offset):
        sparse = direction in {"rollback", "recovery"} or scenario == "blackwell" or done in seen
        faults = list(fault_effects.names(done.operation))
        if fault_effects.changes(done.operation):
            alive = _one_errno(faults, number)
            if sparse:
                alive = _in_turn(alive, number, 2)
            kills = _in_turn(KILLS, number, 1 if sparse else 2)
        else:
            kind = number % (4 if sparse else 2)
            alive = _in_turn(faults, number // 2, int(kind == 0))
            kills = _in_turn(KILLS, number // 2, int(kind == 1))
        for fault in alive:
            yield Case(scenario, direction, done.operation, done.nth, fault)
        for place, moment in enumerate(kills):
            fitting = [fault for fault in ("", *faults) if makes_sense(fault, moment)]
            yield Case(scenario, direction, done.operation, done.nth, fitting[(number + place) % len(fitting)], moment)


def _in_turn(things: Sequence[str], number: int, count: int) -> list[str]:
    return [things[(number * count + place) % len(things)] for place in range(min(count, len(things)))]


def _one_errno(faults: list[str], number: int) -> list[str]:
    errnos = sorted({fault.removesuffix(" always") for fault in faults if fault[0] == "E"})
    if not errnos:
        return faults
    picked = errnos[number % len(errnos)]
    return [fault for fault in faults if fault[0] != "E" or fault.removesuffix(" always") == picked]


def attempt(cases: Iterable[Case]) -> Result:
    """Try cases one after the other."""
    result = Result()
    with _directory() as directory:
        for number, case in enumerate(cases):
            place = Path(directory) / str(number)
            try:
                result.ends[run(Trial(case, place).run())] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                result.failures.append(f"{case}: {type(error).__name__}: {error}")
            shutil.rmtree(place, ignore_errors=True)
    return result


def attempt_in_parallel(scenario: str, direction: str) -> Result:
    """Try the chosen cases, or all, in as many processes as there are processors for each process that runs tests."""
    count = max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    command = [sys.executable, "-m", __name__, scenario, direction]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    workers = [
        subprocess.Popen([*command, str(part), str(count)], stdout=subprocess.PIPE, env=environment, text=True)
        for part in range(count)
    ]
    result = Result()
    for worker in workers:
        output, _ = worker.communicate()
        if worker.returncode != 0:
            result.failures.append(f"a worker ended with status {worker.returncode}")
            continue
        answer = json.loads(output.splitlines()[-1])
        result.add(Result.from_plain(answer))
    return result


def _directory() -> tempfile.TemporaryDirectory[str]:
    """Journals are flushed after every line: in memory that takes no time."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


def main() -> None:
    """Try every `of`th case from `part` on."""
    logging.disable(logging.CRITICAL)
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)
    vars(journal)["parse"] = lru_cache(maxsize=4)(parse)
    scenario, direction, *rest = sys.argv[1:]
    part, of = (int(rest[0]), int(rest[1])) if rest else (0, 1)
    cases = (everything if os.environ.get(ALL) else chosen)(scenario, direction)
    began = time.process_time()
    result = attempt(itertools.islice(cases, part, None, of))
    seconds = time.process_time() - began
    sys.stdout.write(json.dumps({**result.as_plain(), "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
