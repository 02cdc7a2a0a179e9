"""The libvirt hook as libvirt runs it."""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gpuhandoff import names
from gpuhandoff.hypervisor.patterns import patterns
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import igpu_dgpu
from gpuhandoff.survey import survey
from tests.support.bus import REPOSITORY
from tests.support.domains import domain_xml

HOOK = REPOSITORY / "clients/libvirt/50-gpuhandoff"
SHELLS = ("dash", "bash")
OPERATIONS = ("prepare", "start", "started", "stopped", "release", "reconnect", "migrate", "restore", "attach")
CALLS = ("prepare", "started", "release", "reconnect", "migrate", "restore")
VETOES = {"prepare", "migrate", "restore"}
GPU = "0000:01:00.0"
WITHOUT_GPU = domain_xml(("0000:04:00.0",))
ABSENT = "The name org.gpuhandoff.Manager was not provided by any .service files"
SIZES = (10_000, 130_000, 1_000_000)

FAKE = """#!/bin/sh
printf '%s\\0' "$@" >>"$NOTES"
printf 'END\\0' >>"$NOTES"
[ -z "$SAYS" ] || printf '%s\\n' "$SAYS" >&2
exit "$STATUS"
"""


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str


class Hook:
    """Runs the hook as libvirt does: a bare environment, the XML on its standard input."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.shell = shell
        self.notes = directory / "notes"
        self.patterns = directory / "hook-patterns"
        self.environment = {"LC_ALL": "C", "PATH": os.environ["PATH"], "GPUHANDOFF_PATTERNS": str(self.patterns)}

    def fake(self, directory: Path, *, status: int = 0, says: str = "") -> None:
        """Have a busctl that notes its arguments."""
        busctl = directory / "bin" / "busctl"
        busctl.parent.mkdir(exist_ok=True)
        busctl.write_text(FAKE)
        busctl.chmod(0o755)
        self.environment |= {"PATH": f"{busctl.parent}:{os.environ['PATH']}", "NOTES": str(self.notes)}
        self.environment |= {"STATUS": str(status), "SAYS": says}

    def __call__(self, operation: str, xml: str, *, guest: str = "win11", extra: str = "-") -> Ended:
        end = "end" if operation in {"stopped", "release"} else "begin"
        ended = subprocess.run(
            [self.shell, HOOK, guest, operation, end, extra],
            input=xml.encode(), capture_output=True, env=self.environment, timeout=60, check=False,
        )  # fmt: skip
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def calls(self) -> list[list[str]]:
        """Return the arguments of every call, from the method's name on."""
        if not self.notes.exists():
            return []
        found = [one.split("\0")[:-1] for one in self.notes.read_text().split("END\0")[:-1]]
        return [one[one.index(names.HYPERVISOR_INTERFACE) + 1 :] for one in found]


@functools.cache
def known() -> str:
    """Return what the daemon writes for the hook."""

    async def main() -> str:
        machine = await igpu_dgpu()
        broker = LoopbackBroker()
        await machine.serve(broker)
        return patterns(await survey(simulated_host(machine, broker.connect()), ()))

    return run(main())
