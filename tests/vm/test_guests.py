"""A real VMM in the test host has the GPU: it is known by name; when it dies the GPU comes back without anybody asking."""

from __future__ import annotations

import pytest

from tests.vm.bench_host import KILL, BenchHost, difference
from tests.vm.test_refusals import assert_refused

GRACE = 2
"""Seconds between the end of a VMM and the return of the GPU, as configured here."""
TIMEOUT = 3
"""Seconds in which a VMM has to open the GPU, where the handoff asked for that."""
QEMU = "qemu-system-x86_64 -machine q35 -accel tcg -m 64 -nodefaults -display none -daemonize -pidfile /run/guest.pid"


PRIVATE_DEV = (
    "mkdir -p /run/dev && mount -t tmpfs dev /run/dev && cp -a /dev/null /dev/zero /dev/urandom /dev/vfio /run/dev "
    "&& mount --move /run/dev /dev"
)
"""What libvirt does for QEMU, in a mount namespace: the same devices by other inodes, of which inotify hears nothing."""


def start_guest(host: BenchHost, *, private_dev: bool = False) -> str:
    """Start a VMM with the GPU, and return its pid. Its processor stands still: what counts is who has the group open."""
    devices = " ".join(f"-device vfio-pci,host={function},romfile=" for function in host.layout.functions)
    start = f"{QEMU} -S {devices} </dev/null >/dev/null 2>/tmp/guest.log"
    if private_dev:
        start = f"unshare --mount sh -c '{PRIVATE_DEV} && {start}'"
    host.run(f"{start} || {{ cat /tmp/guest.log; exit 1; }}")
    return host.run("cat /run/guest.pid").output.strip()


def kill_guest(host: BenchHost, pid: str) -> None:
    """Kill it and wait until the kernel has taken the devices from it."""
    host.run(f"kill -KILL {pid}")
    host.wait_for(f"test ! -e /proc/{pid}")


def assert_with(host: BenchHost, pid: str) -> None:
    """The daemon knows who has the GPU."""
    host.wait_for_state("guest")
    assert host.status()["owner"] == f"qemu-system-x86 (pid {pid})"


@pytest.fixture
def lender(dual: BenchHost) -> BenchHost:
    """A host that takes a GPU back soon."""
    dual.run(
        f"printf '[host]\\nreclaim-grace = {GRACE}\\n' > /etc/gpuhandoff/conf.d/grace.toml; systemctl reload gpuhandoffd"
    )
    return dual


def test_a_killed_vmm_brings_the_gpu_back(lender: BenchHost) -> None:
    before = lender.snapshot()
    lender.handoff()
    pid = start_guest(lender)
    assert_with(lender, pid)
    kill_guest(lender, pid)
    lender.wait_for_state("host")
    assert difference(before, lender.snapshot()) == []


def test_a_vmm_with_a_dev_of_its_own_is_noticed_as_well(lender: BenchHost) -> None:
    before = lender.snapshot()
    lender.handoff()
    lender.run("sleep 11")  # two reads of how often the card was enabled: what follows is the change of that
    enabled = f"cat /sys/bus/pci/devices/{lender.layout.gpu}/enable"
    assert lender.run(enabled).output.strip() == "0"
    pid = start_guest(lender, private_dev=True)
    assert_with(lender, pid)
    assert lender.run(enabled).output.strip() == "1"
    kill_guest(lender, pid)
    lender.wait_for_state("host")
    assert difference(before, lender.snapshot()) == []


def test_a_killed_vmm_brings_the_desktop_back(single: BenchHost) -> None:
    before = single.snapshot()
    single.handoff("cpus", "s", "0")
    pid = start_guest(single)
    assert_with(single, pid)
    kill_guest(single, pid)
    single.wait_for_state("host", timeout=60)
    single.wait_for_desktop()
    assert difference(before, single.snapshot()) == []


def test_a_vmm_that_is_started_again_in_time_keeps_the_gpu(dual: BenchHost) -> None:
    """A guest's reboot may be a new process; nobody waits longer than the grace that is the default."""
    dual.handoff()
    kill_guest(dual, start_guest(dual))
    again = start_guest(dual)
    dual.run("sleep 12")
    assert_with(dual, again)
    assert set(dual.drivers()) == {"vfio-pci"}


def test_reclaim_is_refused_while_a_vmm_runs(lender: BenchHost) -> None:
    lender.handoff()
    pid = start_guest(lender)
    assert_with(lender, pid)
    away = lender.snapshot()
    assert_refused(lender.reclaim(check=False), f"qemu-system-x86 (pid {pid})", "holders=terminate")
    assert difference(away, lender.snapshot()) == []
    assert_with(lender, pid)


def test_a_daemon_that_was_killed_is_followed_by_one_that_knows_the_guest(lender: BenchHost) -> None:
    before = lender.snapshot()
    lender.handoff()
    pid = start_guest(lender)
    assert_with(lender, pid)
    lender.next_daemon(KILL)
    assert_with(lender, pid)
    assert len(lender.snapshot()["inhibitors"]) == 1
    kill_guest(lender, pid)
    lender.wait_for_state("host")
    assert difference(before, lender.snapshot()) == []


def test_a_guest_that_dies_while_no_daemon_runs(lender: BenchHost) -> None:
    before = lender.snapshot()
    lender.handoff()
    pid = start_guest(lender)
    assert_with(lender, pid)
    lender.run("systemctl stop gpuhandoffd")
    assert set(lender.drivers()) == {"vfio-pci"}
    kill_guest(lender, pid)
    lender.run("systemctl start gpuhandoffd")
    lender.wait_for_state("host")
    assert difference(before, lender.snapshot()) == []


def test_a_guest_that_never_comes(dual: BenchHost) -> None:
    before = dual.snapshot()
    dual.handoff("guest-timeout", "u", str(TIMEOUT))
    assert set(dual.drivers()) == {"vfio-pci"}
    dual.wait_for_state("host")
    assert difference(before, dual.snapshot()) == []


def test_a_guest_that_comes_in_time(lender: BenchHost) -> None:
    before = lender.snapshot()
    lender.handoff("guest-timeout", "u", str(TIMEOUT))
    pid = start_guest(lender)
    lender.run(f"sleep {TIMEOUT + 2}")
    assert_with(lender, pid)
    kill_guest(lender, pid)
    lender.wait_for_state("host")
    assert difference(before, lender.snapshot()) == []
