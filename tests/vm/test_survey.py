"""What is known of a real machine before it is touched: who has the card, whether it comes back, who sleeps."""

from __future__ import annotations

import json
from typing import Any

from tests.vm.bench_host import BenchHost
from tests.vm.test_guests import kill_guest, start_guest


def nodes(host: BenchHost) -> tuple[str, str]:
    """Return the card's display node and that of its sound."""
    gpu, sound = host.layout.functions
    which = f"case $(readlink -f $c) in */{gpu}/*) basename $c;; esac"
    card = host.run(f"for c in /sys/class/drm/card[0-9]; do {which}; done")
    control = host.run(f"basename /sys/bus/pci/devices/{sound}/sound/card*/controlC*")
    return f"/dev/dri/{card.output.strip()}", f"/dev/snd/{control.output.strip()}"


def hold(host: BenchHost, way: str, node: str, name: str, *, uid: str = "0", around: str = "") -> None:
    """Have a process hold a node, and wait until it does."""
    quiet = "</dev/null >/dev/null 2>&1" if around else ""
    host.run(f"{around} python3 -I /root/holder.py {way} {node} {name} {uid} {quiet}")
    host.wait_for(f"pgrep -x {name}")


def holders(host: BenchHost) -> dict[str, dict[str, Any]]:
    """Return who has the card, by name."""
    document = json.loads(host.run(f"gpuhandoff holders {host.layout.gpu} --json").output)
    return {one["name"]: one for one in document["holders"]}


def test_every_way_to_have_a_card_is_seen(dual: BenchHost) -> None:
    card, control = nodes(dual)
    other = dual.run("id -u other").output.strip()
    hold(dual, "open", card, "opens", uid=other)
    hold(dual, "map", card, "maps")
    hold(dual, "open", control, "listens")
    hold(dual, "open", card, "contained", around="setsid --fork unshare --mount --pid --fork --mount-proc")
    found = holders(dual)
    assert {"opens", "maps", "listens", "contained"} <= set(found)
    assert (found["opens"]["user"], found["opens"]["nodes"], found["opens"]["ways"]) == ("other", [card], ["open"])
    assert (found["maps"]["nodes"], found["maps"]["ways"]) == ([card], ["mapped"])
    assert found["listens"]["nodes"] == [control]
    assert found["contained"]["pid"] == int(dual.run("pgrep -x contained").output)
    refused = dual.handoff(check=False)
    assert refused.status == 1
    for name in ("opens", "maps", "listens", "contained"):
        assert f"{name} (pid {found[name]['pid']})" in refused.errors


def test_an_emulated_card_comes_back_and_its_guests_are_counted(dual: BenchHost) -> None:
    said = dual.status()
    assert (said["reset-verdict"], said["reset-risk"], said["guests"]) == ("safe", False, 0)
    assert said["reset-source"].startswith("gpuhandoff's own bench")
    for number in (1, 2):
        dual.handoff()
        kill_guest(dual, start_guest(dual))
        dual.reclaim()
        shown = dual.status()
        assert (shown["reset-verdict"], shown["state"], shown["guests"]) == ("safe", "host", number)


def test_looking_wakes_nobody(dual: BenchHost) -> None:
    """None of the bench's drivers lets its device sleep, but for vfio-pci with what nobody has open (kernel.md 4.2)."""
    sound = dual.layout.functions[1]
    device = f"/sys/bus/pci/devices/{sound}"
    dual.run(f"modprobe vfio-pci; echo vfio-pci > {device}/driver_override; echo {sound} > {device}/driver/unbind")
    dual.run(f"echo {sound} > /sys/bus/pci/drivers_probe")
    dual.wait_for(f"grep -q suspended {device}/power/runtime_status", timeout=10)
    awake = dual.run(f"cat {device}/power/runtime_active_time").output
    for command in ("status", f"plan {dual.layout.gpu}", f"holders {dual.layout.gpu}", "report", "doctor"):
        dual.run(f"gpuhandoff {command}", check=False)
    assert dual.run(f"cat {device}/power/runtime_status").output.strip() == "suspended"
    assert dual.run(f"cat {device}/power/runtime_active_time").output == awake


def test_the_doctor_finds_the_machine_fit(dual: BenchHost) -> None:
    """libvirt's hook is another matter: it is not here."""
    found = json.loads(dual.run("gpuhandoff doctor --json", check=False).output)["findings"]
    assert [one for one in found if one["severity"] == "problem" and not one["check"].startswith("libvirt")] == []
    fine = " ".join(one["what"] for one in found if one["severity"] == "fine")
    for words in ("The IOMMU (VT-d) is on", "vfio-pci is there", f"{dual.layout.gpu}"):
        assert words in fine + " ".join(one["gpu"] for one in found)
