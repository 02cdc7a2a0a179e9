"""What libvirt's guests cannot have is refused before anything moves, and virsh says why; the others cost nobody a call."""

from __future__ import annotations

from tests.vm.bench_host import BenchHost, difference
from tests.vm.domains import Guest, consent, domain
from tests.vm.signals import Signals
from tests.vm.test_libvirt import assert_back

EVERYTHING = "/tmp/everything"


def assert_not_started(host: BenchHost, guest: Guest, *words: str) -> None:
    """The guest's start is refused with these words, and nothing has moved meanwhile, not for a moment."""
    before, weston = host.snapshot(), host.process("weston")
    signals = Signals(host)
    refused = guest.start(check=False)
    assert refused.status == 1
    for word in words:
        assert word in refused.errors
    assert "Traceback" not in refused.errors
    assert signals.heard("DriverChanged") == []
    assert host.process("weston") == weston
    assert difference(before, host.snapshot()) == []


def test_one_of_three_functions(libvirt: BenchHost) -> None:
    guest = Guest(libvirt, functions=libvirt.layout.functions[:1])
    assert_not_started(libvirt, guest, "gpuhandoff: 0000:01:00.0", "has 3 functions", "lacks 0000:01:00.1, 0000:01:00.2")


def test_without_consent(libvirt: BenchHost) -> None:
    consent(libvirt)
    assert_not_started(libvirt, Guest(libvirt), "shows the desktop", 'stop-display = true in the section [vm."guest"]')


def test_a_second_guest(libvirt: BenchHost) -> None:
    before = libvirt.snapshot()
    guest, other = Guest(libvirt), Guest(libvirt, "other")
    guest.start()
    libvirt.wait_for_state("guest")
    refused = other.start(check=False)
    assert refused.status == 1
    assert "is lent to guest. Shut that guest down first." in refused.errors
    assert libvirt.state() == "guest"
    assert guest.virsh("domstate guest").output.strip() == "running"
    guest.virsh("destroy guest")
    guest.wait_for_end()
    assert_back(libvirt, before)
    other.start()
    libvirt.wait_for_state("guest")
    assert libvirt.status()["vm"] == "other"
    other.virsh("destroy other")
    other.wait_for_end()
    assert_back(libvirt, before)


def test_a_running_guest_is_not_saved(libvirt: BenchHost) -> None:
    guest = Guest(libvirt)
    guest.start()
    guest.wait_for("up")
    for what in ("save guest /root/saved", "managedsave guest"):
        refused = guest.virsh(what, check=False)
        assert refused.status == 1
        assert "cannot migrate domain: 0000:01:00.0: VFIO migration is not supported" in refused.errors  # libvirt's words
    assert guest.virsh("domstate guest").output.strip() == "running"
    assert libvirt.state() == "guest"


def test_a_saved_guest_is_not_given_a_gpu(libvirt: BenchHost) -> None:
    """libvirt asks its hook first, then looks whether the domain is still the one that was saved."""
    before = libvirt.snapshot()
    guest = Guest(libvirt, "ordinary", functions=())
    guest.start()
    guest.virsh("save ordinary /root/saved")
    libvirt.machine.agent.push_text(domain("ordinary", libvirt.layout.functions), guest.file)
    refused = guest.virsh(f"restore /root/saved --xml {guest.file}", check=False)
    assert refused.status == 1
    assert "gpuhandoff: ordinary has 0000:01:00.0" in refused.errors
    assert "can be neither saved nor moved to another host" in refused.errors
    assert difference(before, libvirt.snapshot()) == []
    guest.virsh("restore /root/saved")
    assert guest.virsh("domstate ordinary").output.strip() == "running"


def test_a_guest_without_a_gpu_is_nobodys_business(libvirt: BenchHost) -> None:
    """No message from or to gpuhandoff is on the bus while such a guest starts and ends; one with the GPU is heard."""
    ordinary, ours = Guest(libvirt, "ordinary", functions=()), Guest(libvirt, functions=libvirt.layout.functions[:1])
    before = libvirt.snapshot()
    libvirt.run(f"{{ busctl --system monitor --json=short >{EVERYTHING} 2>&1 & echo $! >{EVERYTHING}.pid; }} </dev/null")
    libvirt.wait_for(f"{{ busctl --system status >/dev/null; grep -q '^{{' {EVERYTHING}; }}")
    ordinary.start()
    ordinary.wait_for("up")
    ordinary.virsh("destroy ordinary")
    libvirt.run("busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus GetId")
    libvirt.wait_for(f'grep -q \'"member":"GetId"\' {EVERYTHING}')  # all that was said before has been written down
    silent = libvirt.run(f"cat {EVERYTHING}").output
    assert ours.start(check=False).status == 1
    libvirt.wait_for(f'grep -q \'"member":"Event"\' {EVERYTHING}')
    libvirt.run(f"kill $(cat {EVERYTHING}.pid)")
    assert "gpuhandoff" not in silent
    assert difference(before, libvirt.snapshot()) == []
