"""`./run bench`: time and memory, as ratios against a bare shell script that makes the same kernel operations, in one run.

Emulation is slow and noisy: numbers of two runs do not compare.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass

from tests.bench.hook import NativeFigures, measure_native
from tests.vm.bench_hook import HookFigures, measure_hook
from tests.vm.bench_host import CALL, BenchHost
from tests.vm.hosts import DUAL
from tests.vm.stopwatch import timed

IDLE = 60
"""Seconds over which wake-ups are counted."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Seconds, MiB, and wake-ups a minute."""

    handoff: float
    reclaim: float
    bare_out: float
    bare_back: float
    start_to_ready: float
    python_start: float
    idle_pss: float
    wakeups: float
    hook: HookFigures
    native_hook: NativeFigures

    @property
    def handoff_ratio(self) -> float:
        """Handoff against the script's way out."""
        return self.handoff / self.bare_out

    @property
    def reclaim_ratio(self) -> float:
        """Reclaim against the script's way back."""
        return self.reclaim / self.bare_back


def measure(rounds: int) -> Figures:
    """Boot the host with two GPUs and measure."""
    host = BenchHost(DUAL)
    try:
        gpu, functions = DUAL.gpu, " ".join(DUAL.functions)
        ours, bare = [], []
        for _ in range(rounds):
            bare.append(
                timed(
                    host,
                    f"sh /root/bare.sh out virtio_gpu {functions}",
                    f"sh /root/bare.sh back virtio_gpu {functions}",
                )
            )
            ours.append(timed(host, f"{CALL} Handoff 'sa{{sv}}' {gpu} 0", f"{CALL} Reclaim 'sa{{sv}}' {gpu} 0"))
        start = [timed(host, "systemctl stop gpuhandoffd", "systemctl start gpuhandoffd")[1] for _ in range(3)]
        imports = "python3 -I -c 'import dbus_next, pyudev, psutil, asyncio'"
        python = [timed(host, "true", imports)[1] for _ in range(3)]
        hook = measure_hook(host, "virtio_gpu", rounds)
        pss = float(host.run(_PSS).output)
        switches = [int(host.run(_SWITCHES).output), int(host.run(f"sleep {IDLE}; {_SWITCHES}").output)]
    finally:
        host.stop()
    watchdog = 2 * IDLE / 60  # WATCHDOG=1 twice in each period of 60 s
    return Figures(
        handoff=statistics.median(one for one, _ in ours),
        reclaim=statistics.median(one for _, one in ours),
        bare_out=statistics.median(one for one, _ in bare),
        bare_back=statistics.median(one for _, one in bare),
        start_to_ready=statistics.median(start),
        python_start=statistics.median(python),
        idle_pss=pss,
        wakeups=max(0.0, (switches[1] - switches[0]) * 60 / IDLE - watchdog),
        hook=hook,
        native_hook=measure_native(),
    )


_PIDS = "$(cat /sys/fs/cgroup/system.slice/gpuhandoffd.service/cgroup.procs)"
_PSS = (
    f"for p in {_PIDS}; do grep ^Pss: /proc/$p/smaps_rollup; done | awk '{{sum += $2}} END {{printf \"%.1f\", sum / 1024}}'"
)
_SWITCHES = (
    f"for p in {_PIDS}; do cat /proc/$p/task/*/status; done | awk '/^voluntary_ctxt/ {{sum += $2}} END {{print sum}}'"
)


def main() -> int:
    """Print the figures."""
    arguments = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    arguments.add_argument("--json", action="store_true", help="print one JSON document")
    arguments.add_argument("--rounds", type=int, default=7, metavar="N")
    given = arguments.parse_args()
    figures = measure(given.rounds)
    if given.json:
        ratios = {"handoff_ratio": figures.handoff_ratio, "reclaim_ratio": figures.reclaim_ratio}
        ratios |= figures.hook.ratios
        sys.stdout.write(json.dumps({**asdict(figures), **ratios}) + "\n")
        return 0
    for title, value in (
        (
            "handoff against the bare script",
            f"{figures.handoff:.2f} s / {figures.bare_out:.2f} s = {figures.handoff_ratio:.2f}",
        ),
        (
            "reclaim against the bare script",
            f"{figures.reclaim:.2f} s / {figures.bare_back:.2f} s = {figures.reclaim_ratio:.2f}",
        ),
        (
            "start to READY against Python with its libraries",
            f"{figures.start_to_ready:.2f} s / {figures.python_start:.2f} s",
        ),
        ("PSS when idle, all processes", f"{figures.idle_pss:.1f} MiB"),
        ("wake-ups a minute when idle, watchdog aside", f"{figures.wakeups:.1f}"),
        *figures.hook.rows(),
        figures.native_hook.row(),
    ):
        sys.stdout.write(f"{title:52} {value}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
