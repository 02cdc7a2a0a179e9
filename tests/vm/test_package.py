"""The package installs, upgrades, goes and comes again, whatever GPU is lent meanwhile."""

from __future__ import annotations

import json
import re

from tests.vm.bench_host import BenchHost, difference

NEWER = (
    "rm -rf /tmp/newer && dpkg-deb -R /root/gpuhandoff.deb /tmp/newer"
    " && sed -i 's/^Version: .*/&+newer/' /tmp/newer/DEBIAN/control && dpkg-deb -b /tmp/newer /root/newer.deb"
)


def shown(host: BenchHost, name: str) -> str:
    """Return a property of the daemon's unit."""
    return host.run(f"systemctl show -P {name} gpuhandoffd.service").output.strip()


def test_it_is_started_and_enabled_by_its_installation(dual: BenchHost) -> None:
    assert [shown(dual, name) for name in ("ActiveState", "UnitFileState", "NRestarts")] == ["active", "enabled", "0"]
    dual.run("systemctl reload gpuhandoffd")
    assert dual.status()["state"] == "host"


def test_it_is_confined(dual: BenchHost) -> None:
    told = dual.run("systemd-analyze security --no-pager gpuhandoffd.service").output.splitlines()[-1]
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert exposure is not None, told
    assert float(exposure[1]) <= 3.0


def test_the_bus_starts_it(dual: BenchHost) -> None:
    dual.run("systemctl stop gpuhandoffd")
    assert dual.status()["state"] == "host"
    assert shown(dual, "ActiveState") == "active"


def test_an_upgrade_leaves_a_lent_gpu_where_it_is(dual: BenchHost) -> None:
    before = dual.snapshot()
    dual.handoff()
    away, pid = dual.snapshot(), shown(dual, "MainPID")
    dual.run(NEWER)
    dual.run("dpkg -i /root/newer.deb")
    assert shown(dual, "MainPID") not in {pid, "0"}
    assert dual.status()["state"] == "detached"
    still = dual.snapshot()
    assert difference(away, still) == []
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_a_restart_while_the_card_comes_back_leaves_nobody_in_the_dark(single: BenchHost) -> None:
    """systemd starts nothing that is ordered after what it is about to stop: the display manager must not be."""
    before = single.snapshot()
    single.handoff()
    single.call("Reclaim", single.layout.gpu, "1", "wait", "b", "false", signature="sa{sv}")
    single.next_daemon("systemctl restart gpuhandoffd")
    single.wait_for_desktop()
    moves = json.loads(single.run("gpuhandoff history --json").output)["moves"]
    assert [(one["operation"], one["outcome"]) for one in moves] == [("reclaim", "done"), ("handoff", "done")]
    assert single.state() == "host"
    assert difference(before, single.snapshot()) == []


def test_installed_again_it_takes_back_what_was_lent_before(dual: BenchHost) -> None:
    before = dual.snapshot()
    dual.handoff()
    assert "a GPU is lent" in dual.run("dpkg -r gpuhandoff 2>&1").output
    assert set(dual.drivers()) == {"vfio-pci"}
    dual.run("dpkg -i /root/gpuhandoff.deb")
    assert dual.status()["state"] == "detached"
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_purged_it_leaves_nothing(dual: BenchHost) -> None:
    dual.handoff()
    dual.reclaim()
    dual.run("dpkg --purge gpuhandoff")
    left = dual.run(
        "find / -xdev -path /root -prune -o -path /tmp -prune -o -name '*gpuhandoff*' -print; find /run -name '*gpuhandoff*'"
    )
    assert left.output == ""
    assert dual.run("systemctl is-failed gpuhandoffd", check=False).output.strip() == "inactive"
