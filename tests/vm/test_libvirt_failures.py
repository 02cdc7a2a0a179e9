"""What goes wrong around a guest of the real libvirt: whoever dies, the GPU ends where it belongs."""

from __future__ import annotations

import json

import pytest

from tests.vm.bench_host import CALL, KILL, BenchHost
from tests.vm.domains import Guest
from tests.vm.test_libvirt import DRIVEN, assert_back

LIBVIRTD = "systemctl show -P MainPID libvirtd"
RESTART = "systemctl restart libvirtd"
IMAGES = "/var/lib/libvirt/images"
KILL_LIBVIRTD = "systemctl kill --kill-whom=main --signal=KILL libvirtd"


def running(host: BenchHost) -> Guest:
    """Return a guest that has the GPU."""
    guest = Guest(host)
    guest.start()
    host.wait_for_state("guest")
    return guest


def next_libvirtd(host: BenchHost, end: str) -> None:
    """End libvirtd, and wait until the next one answers."""
    pid = host.run(f"{LIBVIRTD}; {end}").output.split()[0]
    host.wait_for(f"p=$({LIBVIRTD}); test $p -gt 0 -a $p -ne {pid} && virsh list >/dev/null 2>&1", timeout=60)


def moves(host: BenchHost) -> list[tuple[str, str]]:
    """Return the moves that history has, newest first, with their outcomes."""
    told = json.loads(host.run(f"{CALL.replace('busctl', 'busctl -j')} History su '' 0").output)["data"][0]
    return [(move["operation"]["data"], move["outcome"]["data"]) for move in told]


def kill(host: BenchHost, pid: str) -> None:
    """Kill a process, and wait for its end."""
    host.run(f"kill -KILL {pid}")
    host.wait_for(f"test ! -e /proc/{pid}")


@pytest.mark.parametrize("end", [RESTART, KILL_LIBVIRTD], ids=["restarted", "killed"])
def test_libvirtd_is_replaced_while_the_guest_runs(libvirt: BenchHost, end: str) -> None:
    before = libvirt.snapshot()
    guest = running(libvirt)
    pid = guest.pid()
    next_libvirtd(libvirt, end)
    assert guest.virsh(f"domstate {guest.name}").output.strip() == "running"
    assert (guest.pid(), libvirt.state()) == (pid, "guest")
    guest.wait_for("up")
    assert guest.said()[0] == DRIVEN
    guest.virsh(f"shutdown {guest.name}")
    guest.wait_for_end()
    assert_back(libvirt, before)


def test_both_daemons_are_killed_while_the_guest_runs(libvirt: BenchHost) -> None:
    before = libvirt.snapshot()
    guest = running(libvirt)
    pid = guest.pid()
    libvirt.next_daemon(KILL)
    next_libvirtd(libvirt, KILL_LIBVIRTD)
    assert (guest.pid(), libvirt.state()) == (pid, "guest")
    guest.virsh(f"destroy {guest.name}")
    guest.wait_for_end()
    assert_back(libvirt, before)


def test_qemu_is_killed(libvirt: BenchHost) -> None:
    before = libvirt.snapshot()
    guest = running(libvirt)
    kill(libvirt, guest.pid())
    guest.wait_for_end()
    assert_back(libvirt, before)


def test_qemu_is_killed_while_no_libvirtd_runs(libvirt: BenchHost) -> None:
    """Nobody tells of the end: the daemon sees it itself, and libvirtd finds the guest shut off later."""
    before = libvirt.snapshot()
    guest = running(libvirt)
    pid = guest.pid()
    libvirt.run("systemctl stop libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket")
    kill(libvirt, pid)
    libvirt.wait_for_state("host", timeout=60)
    libvirt.run("systemctl start libvirtd")
    guest.wait_for_end()
    assert_back(libvirt, before)


@pytest.mark.parametrize(("disk", "managed"), [("none.qcow2", False), ("bad.qcow2", True)])
def test_a_disk_that_qemu_cannot_use(libvirt: BenchHost, disk: str, managed: bool) -> None:
    libvirt.run(f"echo no image >{IMAGES}/bad.qcow2")
    before = libvirt.snapshot()
    guest = Guest(libvirt, managed=managed, disk=f"{IMAGES}/{disk}")
    failed = guest.start(check=False)
    assert failed.status == 1
    assert {"none.qcow2": "No such file", "bad.qcow2": "not in qcow2 format"}[disk] in failed.errors
    assert_back(libvirt, before)
    assert moves(libvirt)[:2] == [("reclaim", "done"), ("handoff", "done")]  # it was lent before that
