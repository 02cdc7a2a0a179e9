"""Somebody else moves the card meanwhile, on a real kernel. Reclaim still ends at the host's own state; nobody fights.

What others do to a lent card is undone by Reclaim: it brings the host back as it was before the handoff. What they did
before the handoff is part of that state, and stays.
"""

from __future__ import annotations

import pytest

from tests.vm.bench_host import BenchHost, difference
from tests.vm.signals import Signals
from tests.vm.test_refusals import assert_refused

PCI = "/sys/bus/pci"
MANY = 6
"""More changes of state than this, for one thing that somebody did, would be a quarrel."""


def released(function: str) -> str:
    """Return the commands that bring one function back to its native driver by hand."""
    return (
        f"echo {function} > {PCI}/drivers/vfio-pci/unbind; echo > {PCI}/devices/{function}/driver_override;"
        f" echo {function} > {PCI}/drivers_probe"
    )


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (released("0000:02:00.0"), "foreign"),
        (released("0000:02:00.1"), "foreign"),
        (f"modprobe virtio_gpu; {released('0000:02:00.0')}; {released('0000:02:00.1')}", "foreign"),
        ("rmmod vfio_pci", "foreign"),
        (
            f"for f in 0 1; do echo 0000:02:00.$f > {PCI}/drivers/vfio-pci/unbind; done; rmmod vfio_pci vfio_pci_core",
            "foreign",
        ),
        (f"for f in 0 1; do echo > {PCI}/devices/0000:02:00.$f/driver_override; done", "detached"),
        (f"for f in 0 1; do echo on > {PCI}/devices/0000:02:00.$f/power/control; done", "detached"),
        ("udevadm trigger --settle", "detached"),
        ("udevadm trigger --action=add --settle", "detached"),
    ],
    ids=[
        *("display released", "sound released", "both released", "module removed", "unbound, modules removed"),
        *("overrides cleared", "power attributes set", "udev triggered", "udev triggered as if added"),
    ],
)
def test_a_lent_card_is_moved_by_others(dual: BenchHost, script: str, state: str) -> None:
    before = dual.snapshot()
    dual.handoff()
    signals = Signals(dual)
    dual.run(script)
    dual.wait_for_state(state)
    told = [one[1] for one in signals.heard("StateChanged")]
    assert told[-1:] == ([state] if state != "detached" else [])
    assert len(told) < MANY
    dual.reclaim()
    assert dual.state() == "host"
    assert difference(before, dual.snapshot()) == []


def test_a_lent_card_vanishes_and_comes_again(dual: BenchHost) -> None:
    """What was changed for it is undone while it is gone, as far as that goes; the rest when a rescan finds it anew."""
    before = dual.snapshot()
    dual.handoff()
    dual.run(f"for f in 1 0; do echo 1 > {PCI}/devices/0000:02:00.$f/remove; done")
    dual.wait_for("! busctl --system tree --list org.gpuhandoff.Manager | grep -q 02_00_0")
    assert_refused(dual.reclaim(check=False), "0000:02:00.0")
    dual.run(f"echo 1 > {PCI}/rescan; udevadm settle")
    dual.wait_for_state("host")
    assert difference(before, dual.snapshot()) == []


@pytest.mark.parametrize(
    "script",
    [
        f"echo 0000:02:00.$f > {PCI}/drivers_probe",
        f"echo > {PCI}/devices/0000:02:00.$f/driver_override; echo 0000:02:00.$f > {PCI}/drivers_probe",
        "udevadm trigger --action=add",
    ],
    ids=["probes", "clears the override and probes", "triggers udev"],
)
@pytest.mark.parametrize("member", ["Handoff", "Reclaim"])
def test_a_script_that_interferes_all_the_time(dual: BenchHost, script: str, member: str) -> None:
    """The move is made, or fails with a sentence; when the script has ended, Reclaim brings everything back."""
    before = dual.snapshot()
    if member == "Reclaim":
        dual.handoff()
    dual.machine.agent.push_text(f"while test -e /tmp/on; do for f in 0 1; do {script}; done; done\n", "/root/interfere.sh")
    dual.run("touch /tmp/on")
    interfering = dual.machine.agent.start("exec sh /root/interfere.sh >/dev/null 2>&1")
    done = dual.call(member, dual.layout.gpu, "0", signature="sa{sv}", check=False)
    dual.run("rm /tmp/on")
    dual.machine.agent.wait(interfering)
    dual.run("udevadm settle")
    assert done.status == 0 or done.errors.startswith("Call failed: ")
    assert "Traceback" not in done.errors
    if dual.state() != "host":
        dual.reclaim()
    assert dual.state() == "host"
    assert difference(before, dual.snapshot()) == []


def test_what_driverctl_did_to_a_function_beforehand_stays(dual: BenchHost) -> None:
    sound = "0000:02:00.1"
    dual.run(
        f"modprobe vfio-pci; echo {sound} > {PCI}/drivers/snd_hda_intel/unbind;"
        f" echo vfio-pci > {PCI}/devices/{sound}/driver_override; echo {sound} > {PCI}/drivers_probe; udevadm settle"
    )
    before = dual.snapshot()
    assert dual.drivers() == ["virtio-pci", "vfio-pci"]
    dual.handoff()
    assert set(dual.drivers()) == {"vfio-pci"}
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_a_card_that_driverctl_bound_comes_back(dual: BenchHost) -> None:
    """Without a handoff of ours. The vfio modules were loaded by others, who may want them: they stay."""
    dual.run("modprobe vfio-pci")
    before = dual.snapshot()
    for function in reversed(dual.layout.functions):
        dual.run(
            f"echo {function} > {PCI}/devices/{function}/driver/unbind;"
            f" echo vfio-pci > {PCI}/devices/{function}/driver_override; echo {function} > {PCI}/drivers_probe"
        )
    dual.wait_for_state("detached")
    assert dual.status()["reason"] == "bound to vfio-pci by somebody else"
    dual.reclaim()
    assert dual.state() == "host"
    assert difference(before, dual.snapshot()) == []
