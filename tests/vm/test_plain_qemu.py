"""`gpuhandoff run -- qemu-system-x86_64 … {gpu}`: a lease for as long as QEMU runs, and a guest that lights up the card."""

from __future__ import annotations

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


def test_qemu_ends_by_itself(libvirt: BenchHost) -> None:
    before = libvirt.snapshot()
    pid = run(libvirt, "end")
    wait_for(libvirt, "bochs-drm drives display")
    assert status(libvirt, pid) == 0
    assert libvirt.status()["state"] == "host"
    assert_back(libvirt, before)


def test_the_guest_is_on_the_card_and_not_confined(libvirt: BenchHost) -> None:
    before = libvirt.snapshot()
    pid = run(libvirt)
    wait_for(libvirt, "up")
    assert libvirt.machine.picture().share(GREEN) > 0.9
    away = libvirt.snapshot()
    assert away["effective"]["system.slice"] == "0"
    qemu = libvirt.run("cat /run/plain.pid").output.strip()
    assert "/machine.slice/gpuhandoff-run-" in libvirt.run(f"cat /proc/{qemu}/cgroup").output
    assert libvirt.run(f"grep Cpus_allowed_list /proc/{qemu}/status").output.split()[1] == "0-1"
    libvirt.run(f"kill -TERM {libvirt.run(f'cat /proc/{qemu}/stat').output.split()[3]}")  # QEMU ends at its SIGTERM
    assert status(libvirt, pid) == 0
    assert_back(libvirt, before)


def test_qemu_is_killed(libvirt: BenchHost) -> None:
    before = libvirt.snapshot()
    pid = run(libvirt)
    wait_for(libvirt, "bochs-drm drives display")
    libvirt.run("kill -KILL $(cat /run/plain.pid)")
    assert status(libvirt, pid) == 128 + 9
    assert libvirt.status()["state"] == "host"
    assert_back(libvirt, before)


def test_gpuhandoff_run_is_killed(libvirt: BenchHost) -> None:
    """QEMU goes on; the GPU comes back when it has ended, too."""
    before = libvirt.snapshot()
    pid = run(libvirt)
    wait_for(libvirt, "bochs-drm drives display")
    qemu = libvirt.run("cat /run/plain.pid").output.strip()
    libvirt.run(f"kill -KILL {pid}")
    libvirt.wait_for(f"test ! -e /proc/{pid}")
    assert libvirt.state() == "guest"
    libvirt.run(f"kill -KILL {qemu}")
    libvirt.wait_for_state("host", timeout=60)
    assert_back(libvirt, before)
