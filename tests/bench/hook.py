"""What the libvirt hook costs a guest without a GPU on this very machine, where nothing is emulated."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.domains import domain_xml

HOOK = Path(__file__).parents[2] / "clients/libvirt/50-gpuhandoff"
FORMS = "".join(f"<address domain='0x0000' bus='0x01' slot='0x00' function='0x{one}'/>\n" for one in range(4))
"""What the hook looks for, of one card."""
CALLS = 100


@dataclass(frozen=True, slots=True)
class NativeFigures:
    """Seconds of one call, medians."""

    hook: float
    empty: float

    def row(self) -> tuple[str, str]:
        """Return what is printed."""
        more = 1000 * (self.hook - self.empty)
        ratio = self.hook / self.empty
        return (
            "the same on this machine, not emulated",
            f"{self.hook:.4f} s / {self.empty:.4f} s = {ratio:.2f}, {more:+.1f} ms",
        )


def measure_native() -> NativeFigures:
    """Call the hook and an empty one in turns, as libvirt does."""
    with tempfile.TemporaryDirectory() as name:
        patterns, empty = Path(name) / "patterns", Path(name) / "empty"
        patterns.write_text(FORMS)
        empty.write_text("#!/bin/sh\n")
        empty.chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "GPUHANDOFF_PATTERNS": str(patterns)}
        xml = domain_xml(()).encode()
        found: dict[Path, list[float]] = {HOOK: [], empty: []}
        for _ in range(CALLS):
            for hook, seconds in found.items():
                began = time.perf_counter()
                subprocess.run([hook, "bench", "prepare", "begin", "-"], input=xml, env=environment, check=True)
                seconds.append(time.perf_counter() - began)
        return NativeFigures(*(statistics.median(seconds) for seconds in found.values()))
