"""A test host with gpuhandoff installed from its package, and what the tests do with it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from tests.vm.agent import Done
from tests.vm.hosts import Layout
from tests.vm.image import image
from tests.vm.machine import Machine

HERE = Path(__file__).parent
CALL = "busctl --system --timeout=120 call org.gpuhandoff.Manager /org/gpuhandoff/Manager org.gpuhandoff.Manager"
KILL = "systemctl kill --kill-whom=main --signal=KILL gpuhandoffd"
READY = "installed"
INSIDE = ("observe.py", "bare.sh", "hold.py", "holder.py", "latency.py", "strike.py")
"""What runs inside."""

Snapshot = dict[str, Any]


class BenchHost:
    """A machine, its layout, and the package under test."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.machine = Machine(image(), layout.devices)
        try:
            self._install()
        except BaseException:
            self.machine.stop()
            raise

    def _install(self) -> None:
        self.machine.wait_for_boot()
        for name in INSIDE:
            self.machine.agent.push(HERE / name, f"/root/{name}")
        self.machine.agent.push(package(), "/root/gpuhandoff.deb")
        self.run("dpkg -i /root/gpuhandoff.deb >/root/dpkg.log 2>&1 || { cat /root/dpkg.log; exit 1; }")
        if self.run("systemctl start gpuhandoffd", timeout=90, check=False).status:
            raise AssertionError(f"the daemon does not start:\n{self.log()}")
        self.settle()
        self.machine.save(READY)

    def settle(self) -> None:
        """Wait for all that a boot starts. polkit is started by the bus on first use; here before the first snapshot."""
        self.wait_for_desktop()
        self.run("systemctl start polkit; udevadm settle; systemctl is-system-running --wait", check=False)

    def save(self, name: str) -> None:
        """Keep the machine as it is now, until it is switched off."""
        self.machine.save(name)

    def restore(self, name: str = READY) -> None:
        """Be as it was then; without a name, as right after the installation."""
        self.machine.restore(name)

    def run(self, command: str, *, timeout: float = 120, check: bool = True) -> Done:
        """Run a shell command inside."""
        return self.machine.run(command, timeout=timeout, check=check)

    def call(self, member: str, *arguments: str, signature: str = "", check: bool = True) -> Done:
        """Call the manager by busctl, as a person would."""
        words = " ".join(shlex.quote(one) for one in ([signature, *arguments] if signature else arguments))
        return self.run(f"{CALL} {member} {words}", timeout=180, check=check)

    def handoff(self, *options: str, gpu: str = "", check: bool = True) -> Done:
        """Call Handoff with options as busctl words: key, type, value, and so on."""
        consent = ("stop-display", "b", "true") if self.layout.ends_desktop and "stop-display" not in options else ()
        words = (*consent, *options)
        return self.call("Handoff", gpu or self.layout.gpu, str(len(words) // 3), *words, signature="sa{sv}", check=check)

    def reclaim(self, *, check: bool = True) -> Done:
        """Call Reclaim, and wait for the desktop that it starts."""
        done = self.call("Reclaim", self.layout.gpu, "0", signature="sa{sv}", check=check)
        if self.layout.ends_desktop and not done.status:
            self.wait_for_desktop()
        return done

    def wait_for_desktop(self) -> None:
        """Wait until a compositor has opened the card that shows the desktop, and everything else has settled."""
        self.wait_for("ls -l /proc/$(pgrep -xo weston)/fd 2>/dev/null | grep -q /dev/dri/card && pgrep weston-desktop", 90)
        self.run("udevadm settle; sleep 1")

    def status(self, gpu: str = "") -> dict[str, Any]:
        """Return Status of a GPU, the layout's unless told otherwise, without the D-Bus types."""
        reply = json.loads(self.run(f"{CALL.replace('busctl', 'busctl -j')} Status").output)
        shown = reply["data"][0][gpu or self.layout.gpu]["data"]
        return {key: value["data"] for key, value in shown.items()}

    def state(self) -> str:
        """Return the state of the layout's GPU."""
        return str(self.status()["state"])

    def wait_for(self, test: str, timeout: float = 30) -> None:
        """Wait until a shell command succeeds: for what sends no event to a script."""
        self.run(
            f"{test} && exit; for i in $(seq {timeout * 10:.0f}); do sleep 0.1; {test} && exit; done; exit 1",
            timeout=2 * timeout + 30,
        )

    def wait_for_state(self, state: str, timeout: float = 30) -> None:
        """Wait until the daemon shows the layout's GPU in a state."""
        path = "/org/gpuhandoff/gpus/pci_" + self.layout.gpu.replace(":", "_").replace(".", "_")
        shown = f"busctl --system get-property org.gpuhandoff.Manager {path} org.gpuhandoff.Gpu State"
        self.wait_for(f"{shown} | grep -q '\"{state}\"'", timeout)

    def snapshot(self) -> Snapshot:
        """Return everything observable."""
        return dict(json.loads(self.run("python3 -I /root/observe.py").output))

    def next_daemon(self, end: str) -> None:
        """Run a command that ends the daemon, and wait until the next one is ready."""
        main = "$(systemctl show -P MainPID gpuhandoffd)"
        pid = self.run(f"echo {main}; {end}").output.split()[0]
        self.wait_for(f"p={main}; test $p -gt 0 -a $p -ne {pid} && systemctl -q is-active gpuhandoffd", timeout=60)

    def drivers(self) -> list[str]:
        """Return the drivers of the layout's functions."""
        paths = " ".join(f"/sys/bus/pci/devices/{one}/driver" for one in self.layout.functions)
        return self.run(f"for d in {paths}; do basename $(readlink $d || echo none); done").output.split()

    def gpu_driver_moves(self) -> list[str]:
        """Take the display function from its driver and give it back behind the daemon's back; return the states."""
        gpu, states = self.layout.gpu, []
        driver = self.drivers()[0]
        for write in (f"echo {gpu} > /sys/bus/pci/drivers/{driver}/unbind", f"echo {gpu} > /sys/bus/pci/drivers_probe"):
            self.run(write)
            states.append(str(self.status()["state"]))
        return states

    def log(self) -> str:
        """Return the daemon's journal."""
        return self.run("journalctl -u gpuhandoffd -o cat --no-pager | tail -n 80", check=False).output

    def last_words(self) -> str:
        """Return what helps to understand a failure, also of a host that does not answer any more."""
        try:
            return self.log()
        except (OSError, RuntimeError) as error:  # a TimeoutError is an OSError
            return f"The test host does not answer ({error!r}).\n{self.machine.outside()}"

    def process(self, name: str) -> str:
        """Return pid and start time of a process, to tell it from its successor."""
        return self.run(f"for p in $(pgrep -x {name}); do cut -d' ' -f1,22 /proc/$p/stat; done").output.strip()

    def stop(self) -> None:
        """Switch off."""
        self.machine.stop()


def package() -> Path:
    """Return the package under test: the one that `./run vm-test` names, else the last that `./run deb` built."""
    given = os.environ.get("GPUHANDOFF_DEB")
    return Path(given) if given else max((HERE.parents[1] / "build").glob("gpuhandoff_*.deb"))


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what differs, one line each; empty when nothing does."""
    lines = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{key}: {line}" for line in difference(old, new)]
        elif old != new:
            lines.append(f"{key}: {old!r} became {new!r}")
    return lines
