"""An unbind that the kernel does not finish, on a real kernel: a process has the card's sound node open.

It has the node where no scan finds it (`hold.py`), so the handoff is not refused beforehand, and shows it once the kernel
waits for it.
"""

from __future__ import annotations

import pytest

from tests.vm.agent import Done
from tests.vm.bench_host import CALL, KILL, BenchHost, Snapshot, difference
from tests.vm.target import ALL

NAME = "jackd"
DEADLINE = 30.0
"""Seconds that the daemon waits for an unbind."""
CALLS = 20
MEDIANS = 3
WAITS = "grep -qx snd_card_free /proc/[0-9]*/wchan"
OTHER = "0000:01:00.0"
NEXT = (
    ("while it waits", "killed"),
    ("when it is stuck", "restarted"),
    ("while it waits", "restarted"),
    ("when it is stuck", "killed"),
)
"""When the daemon ends, and how; the first half each day."""


class Hang:
    """A handoff whose unbind of the sound function hangs."""

    def __init__(self, host: BenchHost) -> None:
        self.host = host
        self.before = host.snapshot()
        node = host.run(f"basename /sys/bus/pci/devices/{host.layout.functions[1]}/sound/card*/controlC*").output.strip()
        self.pid = host.run(f"python3 -I /root/hold.py /dev/snd/{node} {NAME}").output.strip()
        self._handoff = host.machine.agent.start(f"{CALL} Handoff 'sa{{sv}}' {host.layout.gpu} 0")
        host.wait_for(WAITS)
        host.run(f"kill -USR1 {self.pid}")

    def handoff(self) -> Done:
        """Return how the handoff ended."""
        return self.host.machine.agent.wait(self._handoff, timeout=2 * DEADLINE)

    def close(self) -> None:
        """Have the process close the node."""
        self.host.run(f"kill {self.pid}")


def assert_names_the_cause(text: str, hang: Hang) -> None:
    for word in (f"{NAME} (pid {hang.pid})", "/dev/snd/controlC", "snd_card_free"):
        assert word in text


def assert_comes_back_by_itself(host: BenchHost, before: Snapshot) -> None:
    """Nobody calls anything."""
    host.wait_for_state("host", timeout=60)
    assert host.status()["reason"] == ""
    assert difference(before, host.snapshot()) == []


def latency(host: BenchHost) -> float:
    """Return how long Status takes. The machine below has other work, too: the best of some medians."""
    return min(float(host.run(f"python3 -I /root/latency.py {CALLS}").output) for _ in range(MEDIANS))


def test_a_hanging_unbind_is_reported_and_ends_by_itself(dual: BenchHost) -> None:
    dual.run("timeout 100 busctl --system monitor --json=short --match=type=error </dev/null >/tmp/errors 2>&1 &")
    hang = Hang(dual)
    done = hang.handoff()
    assert done.status == 1
    assert_names_the_cause(done.errors, hang)
    dual.wait_for("grep -q org.gpuhandoff.Error.Stuck /tmp/errors")
    status = dual.status()
    assert status["state"] == "stuck"
    assert_names_the_cause(status["reason"], hang)
    hang.close()
    assert_comes_back_by_itself(dual, hang.before)


def test_status_is_answered_meanwhile(dual: BenchHost) -> None:
    idle = latency(dual)
    hang = Hang(dual)
    pending = latency(dual)
    assert dual.state() == "handing-off"
    hang.handoff()
    stuck = latency(dual)
    assert dual.state() == "stuck"
    hang.close()
    assert_comes_back_by_itself(dual, hang.before)
    print(f"Status: idle {idle:.4f} s, kernel busy {pending:.4f} s, stuck {stuck:.4f} s")  # noqa: T201
    assert max(pending, stuck) <= 2 * idle


def test_only_that_gpu_is_affected(dual: BenchHost) -> None:
    hang = Hang(dual)
    hang.handoff()
    refused = dual.handoff(check=False)
    assert refused.status == 1
    assert "stuck" in refused.errors
    assert dual.status(OTHER)["state"] == "host"
    plan = dual.call("Plan", OTHER, "handoff", "1", "stop-display", "b", "true", signature="ssa{sv}")
    assert "stop-display" in plan.output
    dual.handoff("stop-display", "b", "true", gpu=OTHER)
    assert dual.status(OTHER)["state"] == "detached"
    assert dual.state() == "stuck"
    dual.call("Reclaim", OTHER, "0", signature="sa{sv}")
    dual.wait_for_desktop()
    hang.close()
    assert_comes_back_by_itself(dual, hang.before)


@pytest.mark.parametrize(("when", "end"), NEXT if ALL else NEXT[:2])
def test_the_next_daemon_knows(dual: BenchHost, when: str, end: str) -> None:
    hang = Hang(dual)
    if when == "when it is stuck":
        hang.handoff()
    dual.next_daemon(KILL if end == "killed" else "systemctl restart gpuhandoffd")
    dual.wait_for_state("stuck", timeout=60)
    dual.run(WAITS)
    assert_names_the_cause(dual.status()["reason"], hang)
    hang.close()
    assert_comes_back_by_itself(dual, hang.before)


def test_a_node_closed_in_time_disturbs_nothing(dual: BenchHost) -> None:
    hang = Hang(dual)
    hang.close()
    assert hang.handoff().status == 0
    assert dual.state() == "detached"
    dual.reclaim()
    assert difference(hang.before, dual.snapshot()) == []
