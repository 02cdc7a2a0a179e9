"""A host in which a call is the next thing to do, and in which that call is struck at one exact moment."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.vm.bench_host import CALL, BenchHost, Snapshot, difference
from tests.vm.tally import KILLS


@dataclass(frozen=True, slots=True)
class Target:
    """A host in which a call is the next thing to do."""

    host: BenchHost
    member: str
    before: Snapshot
    """The host before the GPU was ever lent."""

    def strike(self, moment: str, number: int = 0) -> dict[str, Any]:
        """Carry out one case from the start, and return what `strike.py` prints."""
        self.host.restore(f"before-{self.member}")
        return strike(self.host, self.member, moment, number)

    def lines(self) -> list[str]:
        """Return how the lines begin that the journal gets when nobody is killed."""
        return list(self.strike("never")["lines"])

    def wrong(self, moment: str, number: int = 0) -> list[str]:
        """Kill the daemon once and count the outcome; return what is not as promised."""
        found = self.strike(moment, number)
        if not found["killed"]:
            return [f"nobody was killed: {found}"]
        differs = [] if found["there"] and found["restarts"] == "1" else ["systemd did not start the daemon again"]
        differs += difference(self.before, found["now"])
        if not differs:
            KILLS["restored"] += 1
        elif found["there"] and self._may_be_away(moment, number) and self._is_away(found["now"]):
            KILLS["complete"] += 1
            self.host.reclaim()
            differs = difference(self.before, self.host.snapshot())
        else:
            KILLS["other"] += 1
        return [*differs, self.host.log()] if differs else []

    def wrong_at(self, moment: str, lines: Sequence[str]) -> dict[str, list[str]]:
        """Kill at each line that is chosen."""
        cases = {f"{moment} {number} ({line})": self.wrong(moment, number) for number, line in chosen(moment, lines)}
        return {case: wrong for case, wrong in cases.items() if wrong}

    def _may_be_away(self, moment: str, number: int) -> bool:
        """A handoff may have been completed; a Reclaim that has not written its first line has not begun."""
        return self.member == "Handoff" or (moment, number) == ("before", 1)

    def _is_away(self, now: Snapshot) -> bool:
        """The handoff is complete, the daemon that took it over knows it and keeps the machine awake."""
        drivers = {now["pci"][function]["driver"] for function in self.host.layout.functions}
        return drivers == {"vfio-pci"} and self.host.status()["state"] == "detached" and len(now["inhibitors"]) == 1


ALL = bool(os.environ.get("GPUHANDOFF_TEST_ALL"))
"""Whether everything is tried, which takes hours, or each day's choice."""
STRIDE = {"before": 8, "after": 8, "full": 16, "broken": 16}
"""By moment: of how many lines of a journal one is struck each day."""


def chosen(moment: str, lines: Sequence[str]) -> Iterable[tuple[int, str]]:
    """Return the lines to be struck, with their numbers.

    Little happens between the moment after a line and the one before the next: the moments take turns.
    """
    numbered, stride = list(enumerate(lines, 1)), STRIDE[moment]
    return numbered if ALL else numbered[stride // 2 * (moment in {"after", "broken"}) :: stride]


def strike(host: BenchHost, member: str, moment: str, number: int = 0) -> dict[str, Any]:
    """Call Handoff or Reclaim, and have that struck (`strike.py`)."""
    consent = "1 stop-display b true" if member == "Handoff" and host.layout.ends_desktop else "0"
    call = f"{CALL} {member} 'sa{{sv}}' {host.layout.gpu} {consent}"
    done = host.run(f"python3 -I /root/strike.py {moment} {number} {host.layout.gpu} {call}", timeout=200)
    found = dict(json.loads(done.output))
    assert moment != "never" or not found["errors"], found["errors"]  # nobody was in its way
    return found


@functools.cache
def prepared(host: BenchHost, member: str) -> Target:
    """Have a host ready for Handoff or for Reclaim; made once, kept as a snapshot of the whole machine."""
    before = host.snapshot()
    host.machine.agent.push_text(json.dumps(before), "/root/before.json")
    if member == "Reclaim":
        host.handoff()
    host.save(f"before-{member}")
    return Target(host, member, before)
