"""`gpuhandoff run -- qemu-system-x86_64 … {gpu}`: a lease for as long as QEMU runs, and a guest that lights up the card."""

from __future__ import annotations

import pytest

from tests.vm.bench_host import BenchHost
from tests.vm.domains import BOOT, GREEN, IMAGES, MEMORY, WORDS
from tests.vm.test_libvirt import assert_back

SERIAL = "/tmp/plain.log"
MONITOR = "/tmp/plain.monitor"


def run(host: BenchHost, words: str = "") -> int:
    """Start QEMU under `gpuhandoff run` and return the pid of what waits for it."""
    qemu = (
        f"qemu-system-x86_64 -machine q35 -accel kvm -cpu host -m {MEMORY} -nodefaults -display none -vga none"
        f" -kernel {IMAGES}/vmlinuz -initrd {IMAGES}/initrd -append '{WORDS} {words}' -serial file:{SERIAL}"
        f" -monitor unix:{MONITOR},server=on,wait=off -pidfile /run/plain.pid {{gpu}}"
    )
    host.run(f"rm -f {SERIAL} /run/plain.pid")
    return host.machine.agent.start(
        f"exec gpuhandoff run --gpu 01:00.0 --stop-display --vm plain --cpus 0 -- {qemu} </dev/null >/tmp/run.log 2>&1"
    )


def wait_for(host: BenchHost, said: str) -> None:
    """Wait until the guest has said something."""
    host.wait_for(f"grep -q 'guest: {said}' {SERIAL}", timeout=BOOT)


def status(host: BenchHost, pid: int) -> int:
    """Return the exit status of `gpuhandoff run`."""
    return host.machine.agent.wait(pid, 120).status


def test_qemu_ends_by_itself(single: BenchHost) -> None:
    before = single.snapshot()
    pid = run(single, "end")
    wait_for(single, "bochs-drm drives display")
    assert status(single, pid) == 0
    assert single.status()["state"] == "host"
    assert_back(single, before)


def test_the_guest_is_on_the_card_and_not_confined(single: BenchHost) -> None:
    before = single.snapshot()
    pid = run(single)
    wait_for(single, "up")
    assert single.machine.picture().share(GREEN) > 0.9
    away = single.snapshot()
    assert away["effective"]["system.slice"] == "0"
    qemu = single.run("cat /run/plain.pid").output.strip()
    assert "/machine.slice/gpuhandoff-run-" in single.run(f"cat /proc/{qemu}/cgroup").output
    assert single.run(f"grep Cpus_allowed_list /proc/{qemu}/status").output.split()[1] == "0-1"
    single.run(f"kill -TERM {single.run(f'cat /proc/{qemu}/stat').output.split()[3]}")  # QEMU ends at its SIGTERM
    assert status(single, pid) == 0
    assert_back(single, before)


def test_qemu_is_killed(single: BenchHost) -> None:
    before = single.snapshot()
    pid = run(single)
    wait_for(single, "bochs-drm drives display")
    single.run("kill -KILL $(cat /run/plain.pid)")
    assert status(single, pid) == 128 + 9
    assert single.status()["state"] == "host"
    assert_back(single, before)


@pytest.mark.parametrize("first", ["gpuhandoff", "both"])
def test_gpuhandoff_run_is_killed(single: BenchHost, first: str) -> None:
    """QEMU may go on; the GPU comes back when it has ended, too."""
    before = single.snapshot()
    pid = run(single)
    wait_for(single, "bochs-drm drives display")
    qemu = single.run("cat /run/plain.pid").output.strip()
    single.run(f"kill -KILL {pid}")
    if first == "gpuhandoff":
        single.wait_for(f"test ! -e /proc/{pid}")
        assert single.state() == "guest"
    single.run(f"kill -KILL {qemu}")
    single.wait_for_state("host", timeout=60)
    assert_back(single, before)
