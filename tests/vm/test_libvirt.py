"""Real libvirt starts a guest that has the card: its own driver lights it up, and however it ends the desktop is back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.vm.bench_host import BenchHost, Snapshot, difference
from tests.vm.domains import Guest

CYCLES = 10
DRIVEN = "bochs-drm drives display 0000:05:00.0"
"""The card, at its address in the guest."""


def shut_down(guest: Guest) -> None:
    """Press the guest's power button, as a person's `virsh shutdown` does."""
    guest.wait_for("up")
    guest.virsh(f"shutdown {guest.name}")


def destroy(guest: Guest) -> None:
    """Pull the guest's plug while its driver has the card."""
    guest.wait_for("up")
    guest.virsh(f"destroy {guest.name}")


def pull_the_plug_early(guest: Guest) -> None:
    """Do the same while it boots."""
    guest.virsh(f"destroy {guest.name}")


def assert_back(host: BenchHost, before: Snapshot) -> None:
    """The GPU is with the host, the desktop on it, and nothing differs. Nobody has to wait: libvirt has, in its hook."""
    assert host.state() == "host"
    host.wait_for_desktop()
    assert difference(before, host.snapshot()) == []


@pytest.mark.parametrize(("end", "managed"), [(shut_down, False), (destroy, True)], ids=["shut_down", "destroy-managed"])
def test_lent_at_start_and_back_at_the_end(libvirt: BenchHost, end: Callable[[Guest], None], managed: bool) -> None:
    before = libvirt.snapshot()
    guest = Guest(libvirt, managed=managed)
    guest.start()
    libvirt.wait_for_state("guest")
    assert libvirt.status()["vm"] == guest.name
    end(guest)
    guest.wait_for_end()
    assert guest.said()[:2] == [DRIVEN, "drawn"]
    assert_back(libvirt, before)


def test_a_guest_that_ends_by_itself(libvirt: BenchHost) -> None:
    before = libvirt.snapshot()
    guest = Guest(libvirt, words="end")
    guest.start()
    guest.wait_for("ends")
    guest.wait_for_end()
    assert guest.said() == [DRIVEN, "drawn", "ends"]
    assert_back(libvirt, before)


def test_ten_cycles_in_one_boot(libvirt: BenchHost) -> None:
    """Some boot and draw, the others' plug is pulled as soon as they have the card; libvirt manages every other one."""
    before = libvirt.snapshot()
    for number in range(CYCLES):
        guest = Guest(libvirt, managed=bool(number % 2))
        guest.start()
        libvirt.wait_for_state("guest")
        (destroy if number % 5 == 0 else pull_the_plug_early)(guest)
        guest.wait_for_end()
        assert_back(libvirt, before)
