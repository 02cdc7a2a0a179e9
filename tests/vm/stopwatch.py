"""How long commands take inside the test host, by its own clock."""

from __future__ import annotations

import itertools

from tests.vm.bench_host import BenchHost


def timed(host: BenchHost, *commands: str) -> list[float]:
    """Return the seconds of each command, one after the other."""
    steps = "".join(f"{{ {command}; }} >/dev/null || exit; t; " for command in commands)
    done = host.run(f"t() {{ date +%s.%N; }}; t; {steps}", timeout=300)
    times = [float(line) for line in done.output.split()]
    return [after - before for before, after in itertools.pairwise(times)]
