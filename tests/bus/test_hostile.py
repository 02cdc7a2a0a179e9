"""All that an unprivileged user can think of, at once against the running daemon: it answers others, and is none the worse.

A few thousand messages, or 100,000 with GPUHANDOFF_TEST_ALL=1.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from dbus_next import MessageType

from gpuhandoff.names import BUS_NAME, MANAGER_INTERFACE, MANAGER_PATH
from tests.bus.test_bus_daemon import Running, start
from tests.support.bus import REPOSITORY
from tests.support.hostile import ATTACKS, parts
from tests.support.stranger import Stranger

ALL = bool(os.environ.get("GPUHANDOFF_TEST_ALL"))
MESSAGES = 100_000 if ALL else 4_000
AT_ONCE = 3
GROWTH = 10 << 20
CALLS = 300
HONEST = 5
"""Another user than the hostile one: "games"."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from start(tmp_path_factory.mktemp("daemon") / "log")


def ask(honest: Stranger) -> float:
    """Return how long Status takes, in seconds."""
    began = time.monotonic()
    reply = honest.call(BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Status")
    assert reply.message_type is MessageType.METHOD_RETURN, reply.body
    return time.monotonic() - began


def usual(process: psutil.Process, honest: Stranger) -> tuple[float, float]:
    """Return how long a Status takes, and how long the daemon works for it, which others on this machine change little."""
    worked = process.cpu_times()
    took = [ask(honest) for _ in range(CALLS)]
    now = process.cpu_times()
    return statistics.median(took), (now.user + now.system - worked.user - worked.system) / CALLS


def settled(process: psutil.Process, honest: Stranger) -> tuple[int, int]:
    """Return resident bytes and descriptors once nothing is going on any more."""
    time.sleep(1)
    for _ in range(50):
        ask(honest)
    return process.memory_info().rss, process.num_fds()


def attack(address: str, name: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.support.hostile", address, name, str(count)], cwd=REPOSITORY)


def test_every_attack_at_once(running: Running, tell: Callable[[str], None]) -> None:
    process = psutil.Process(running.process.pid)
    with Stranger(running.bus.address, uid=HONEST) as honest:
        attack(running.bus.address, "flood", 500).wait(120)  # so that what is made once for all is there
        for _ in range(3):
            assert not honest.call(BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Report", "a{sv}", [{}]).error_name
        before, (fast, little) = settled(process, honest), usual(process, honest)
        waiting = list(parts(MESSAGES))
        assert {name for name, _ in waiting} == set(ATTACKS)
        assert sum(count for _, count in waiting) >= MESSAGES
        at_work: list[subprocess.Popen[bytes]] = []
        took: list[float] = []
        until = time.monotonic() + (1800 if ALL else 300)
        while waiting or at_work:
            assert time.monotonic() < until
            assert {one.poll() for one in at_work} <= {None, 0}
            at_work = [one for one in at_work if one.poll() is None]
            while waiting and len(at_work) < AT_ONCE:
                at_work.append(attack(running.bus.address, *waiting.pop()))
            took.append(ask(honest))
            time.sleep(0.005)
        after, (later, much) = settled(process, honest), usual(process, honest)
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    tell(
        f"{MESSAGES} hostile messages: {len(took)} honest Status meanwhile, p50 {took[len(took) // 2] * 1e3:.1f} ms, p99 "
        f"{p99 * 1e3:.1f} ms, longest {took[-1] * 1e3:.1f} ms; usual {fast * 1e3:.2f} ms before, "
        f"{later * 1e3:.2f} ms after, of work {little * 1e3:.2f} and {much * 1e3:.2f} ms; "
        f"memory {before[0] / 1e6:.1f} -> {after[0] / 1e6:.1f} MB; "
        f"descriptors {before[1]} -> {after[1]}"
    )
    assert running.process.poll() is None
    assert "Traceback" not in running.log.read_text()
    assert after[0] - before[0] < GROWTH
    assert after[1] == before[1]
    assert much < little * 1.5
