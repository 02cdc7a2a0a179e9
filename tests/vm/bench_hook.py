"""The libvirt hook's time, against one written by hand with the same sysfs writes; without a GPU, against an empty one."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from tests.support.domains import domain_xml
from tests.vm.bench_host import BenchHost
from tests.vm.stopwatch import timed

HOOK = "/etc/libvirt/hooks/qemu.d/50-gpuhandoff"
CALLS = 40
"""Of the hook for a guest without a GPU, in one measurement."""
MEMORY = 256 << 10
"""KiB of the guest."""


@dataclass(frozen=True, slots=True)
class HookFigures:
    """Seconds of one call."""

    prepare: float
    by_hand_prepare: float
    release: float
    by_hand_release: float
    without_gpu: float
    empty: float

    @property
    def ratios(self) -> dict[str, float]:
        """What does compare."""
        return {
            "hook_prepare_ratio": self.prepare / self.by_hand_prepare,
            "hook_release_ratio": self.release / self.by_hand_release,
            "hook_without_gpu_ratio": self.without_gpu / self.empty,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return what is printed."""
        more = 1000 * (self.without_gpu - self.empty)
        return [
            ("hook at prepare against one written by hand", _row(self.prepare, self.by_hand_prepare)),
            ("hook at release against one written by hand", _row(self.release, self.by_hand_release)),
            ("hook for a guest without GPU against an empty one", f"{_row(self.without_gpu, self.empty)}, {more:+.1f} ms"),
        ]


def measure_hook(host: BenchHost, module: str, rounds: int) -> HookFigures:
    """Call hooks as libvirt does: the domain's XML on stdin, waiting for the end."""
    functions = " ".join(host.layout.functions)
    out, back = (f"sh /root/bare.sh {way} {module} {functions}" for way in ("out", "back"))
    by_hand = f"#!/bin/sh\ncat >/dev/null\ncase $2 in\nprepare) {out} ;;\nrelease) {back} ;;\nesac\n"
    with_gpu = domain_xml(host.layout.functions, memory=MEMORY)
    for text, name in (
        (by_hand, "by-hand"),
        ("#!/bin/sh\n", "empty"),
        (with_gpu, "gpu.xml"),
        (domain_xml(()), "no-gpu.xml"),
    ):
        host.machine.agent.push_text(text, f"/root/{name}")
    host.run("chmod 755 /root/by-hand /root/empty")
    ours, hand = [], []
    without: list[float] = []
    empty: list[float] = []
    for _ in range(rounds):
        hand.append(timed(host, *(_call("/root/by-hand", one, "gpu") for one in ("prepare", "release"))))
        ours.append(timed(host, *(_call(HOOK, one, "gpu") for one in ("prepare", "release"))))
        calls = (f"for i in $(seq {CALLS}); do {_call(hook, 'prepare', 'no-gpu')}; done" for hook in (HOOK, "/root/empty"))
        for found, seconds in zip((without, empty), timed(host, *calls), strict=True):
            found.append(seconds / CALLS)
    return HookFigures(
        prepare=statistics.median(one for one, _ in ours),
        by_hand_prepare=statistics.median(one for one, _ in hand),
        release=statistics.median(one for _, one in ours),
        by_hand_release=statistics.median(one for _, one in hand),
        without_gpu=statistics.median(without),
        empty=statistics.median(empty),
    )


def _call(hook: str, operation: str, domain: str) -> str:
    return f"{hook} bench {operation} begin - < /root/{domain}.xml"


def _row(ours: float, other: float) -> str:
    return f"{ours:.3f} s / {other:.3f} s = {ours / other:.2f}"
