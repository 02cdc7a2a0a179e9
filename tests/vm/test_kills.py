"""SIGKILL for the daemon at each line of its journal, on a real kernel: the host is what it was, or the handoff is complete.

An eighth of them each day, all with GPUHANDOFF_TEST_ALL=1. Every case starts from one snapshot of the whole machine
and kills at one exact system call (`strike.py`). How many lines there are is seen in a run in which nobody is killed. What
was counted is printed at the end of all tests.
"""

from __future__ import annotations

import pytest

from tests.vm.bench_host import BenchHost
from tests.vm.target import prepared


@pytest.mark.parametrize("member", ["Handoff", "Reclaim"])
def test_killed_before_each_line(host: BenchHost, member: str) -> None:
    struck = prepared(host, member)
    assert struck.wrong_at("before", struck.lines()) == {}


@pytest.mark.parametrize("member", ["Handoff", "Reclaim"])
def test_killed_after_each_line(host: BenchHost, member: str) -> None:
    struck = prepared(host, member)
    assert struck.wrong_at("after", struck.lines()) == {}


def test_killed_before_and_after_the_journal_is_removed(host: BenchHost) -> None:
    struck = prepared(host, "Reclaim")
    assert struck.wrong("unlink") == []
    assert struck.wrong("unlinked") == []
