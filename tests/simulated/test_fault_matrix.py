"""Whatever goes wrong, wherever, whenever: the host is as it was, the handoff is complete, or the GPU is stuck and says why.

Five machines, four directions (handoff, reclaim, rollback of a handoff, recovery by a daemon that finds one), every
operation of every step, every kind of fault that this operation can suffer, every moment at which the daemon can be killed:
`tests/support/fault_trial.py` tries one case and judges its end, `fault_effects.py` says which faults there are,
`fault_matrix.py` which cases are tried. Every day it is a choice of them that meets each operation with each kind of fault
and with kills at every moment, but not with every pair of both; GPUHANDOFF_TEST_ALL=1 tries every pair, which takes hours.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import fault_effects
from tests.support.fault_case import DIRECTIONS, MOMENTS
from tests.support.fault_matrix import MACHINES, Result, attempt_in_parallel, chosen, everything, operations


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("scenario", MACHINES)
def test_nothing_is_ever_left_half_done(scenario: str, direction: str, count_faults: Callable[[Result], None]) -> None:
    result = attempt_in_parallel(scenario, direction)
    count_faults(result)
    assert not result.failures, "\n".join(result.failures[:20])
    assert set(result.ends) <= {"restored", "done", "stuck", "missed"}
    assert result.ends["missed"] < sum(result.ends.values()) // 10


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_operation_meets_every_kind_of_fault_and_every_moment(direction: str) -> None:
    cases = list(chosen("single-nvidia", direction))
    for done in operations("single-nvidia", direction):
        if fault_effects.changes(done.operation):
            mine = [case for case in cases if (case.operation, case.nth) == (done.operation, done.nth)]
            assert mine, done
    assert {case.moment for case in cases} == set(MOMENTS)
    assert len(set(cases)) == len(cases)
    assert set(cases) <= set(everything("single-nvidia", direction))
