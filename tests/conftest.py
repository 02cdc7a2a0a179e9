"""For all tests: in CI a skipped test is a failed one, and no test leaves processes or descriptors behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests.support.fault_matrix import Result, total

KILLED_INSIDE = ("tests/simulated/", "tests/unit/test_runner_deaths.py")
"""Here daemons are killed inside the test's own process, which keeps the descriptors that a real one would lose."""

if not os.environ.get("CI"):  # there Hypothesis does so by itself: how long a test takes says nothing on a busy machine
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")

FAULTS = "faults"
MEASURED = "measured"
"""Kinds of what tests tell for the summary: they travel with the tests' reports, as several processes run them."""


@pytest.fixture
def count_faults(request: pytest.FixtureRequest) -> Callable[[Result], None]:
    """Take in what came of a part of the fault matrix, for the summary."""
    return lambda result: request.node.user_properties.append((FAULTS, result.as_plain()))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take in what was measured, for the summary."""
    return lambda line: request.node.user_properties.append((MEASURED, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were tried and what came of them, and what was measured."""
    told = [
        pair
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for pair in report.user_properties
    ]
    faults = [Result.from_plain(value) for kind, value in told if kind == FAULTS]
    if faults:
        terminalreporter.section("fault matrix")
        terminalreporter.line(str(total(faults)))
    measured = [value for kind, value in told if kind == MEASURED]
    if measured:
        terminalreporter.section("measured")
        for line in measured:
            terminalreporter.line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skips into failures where CI is set."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for files that skip themselves as a whole."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves processes or open descriptors."""
    if request.node.nodeid.startswith("tests/vm/"):  # its machines stay for the next test
        yield
        return
    children, descriptors = _children(), _descriptors()
    yield
    if (_children(), _descriptors()) != (children, descriptors):
        gc.collect()  # what only the garbage collector closes is no leak
    assert _children() <= children, "processes were left behind"
    if not request.node.nodeid.startswith(KILLED_INSIDE):
        left = {number: target for number, target in _descriptors().items() if number not in descriptors}
        assert not left, "descriptors were left open"


def _children() -> set[tuple[int, str]]:
    if os.getpid() == 1:  # in a container: everybody's orphans become ours
        return set()
    return {(one.pid, one.name()) for one in psutil.Process().children()}


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that listed them
            continue
    return found
