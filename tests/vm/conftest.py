"""Each test host boots once a run; every test starts from the same snapshot of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.bench_host import BenchHost
from tests.vm.domains import ready
from tests.vm.hosts import DUAL, SHARED, SINGLE, Layout
from tests.vm.tally import sentences

_booted: dict[str, BenchHost] = {}


def _host(layout: Layout) -> BenchHost:
    """Return the booted host; only one runs at a time, as two would share two slow processors.

    One that has ended is booted anew: what ended it fails one test, not all that follow.
    """
    if layout.name in _booted and _booted[layout.name].machine.ended() is not None:
        _booted.pop(layout.name).stop()
    if layout.name not in _booted:
        for other in list(_booted):
            _booted.pop(other).stop()
        _booted[layout.name] = BenchHost(layout)
    host = _booted[layout.name]
    host.restore()
    return host


@pytest.fixture(scope="session", autouse=True)
def _switch_off() -> Iterator[None]:
    yield
    for name in list(_booted):
        _booted.pop(name).stop()


@pytest.fixture
def dual() -> BenchHost:
    """The host whose second GPU moves."""
    return _host(DUAL)


@pytest.fixture
def single() -> BenchHost:
    """The host whose only GPU moves."""
    return _host(SINGLE)


@pytest.fixture
def libvirt(single: BenchHost) -> BenchHost:
    """The same with libvirtd running, whose guests may end the desktop."""
    single.restore(ready(single))
    return single


@pytest.fixture
def shared() -> BenchHost:
    """The host whose second GPU shares its IOMMU group with a network card."""
    return _host(SHARED)


@pytest.fixture(params=[DUAL, SINGLE], ids=lambda layout: str(layout.name))
def host(request: pytest.FixtureRequest) -> BenchHost:
    """Both, one after the other."""
    return _host(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all tests of a host together: it boots once."""

    def which(item: pytest.Item) -> int:
        names = [item.name, *getattr(item, "fixturenames", ())]
        return next((place for place, one in enumerate(("shared", "single")) if any(one in name for name in names)), -1)

    items.sort(key=which)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the daemon's journal with a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result
    if report.when == "call" and report.failed:
        for host in _booted.values():
            report.sections.append(("journal of gpuhandoffd", host.last_words()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted."""
    for line in sentences():
        terminalreporter.write_line(line)
