"""A GPU goes and comes back, on a real kernel; afterwards the host is what it was."""

from __future__ import annotations

from tests.vm.bench_host import BenchHost, difference
from tests.vm.signals import Signals
from tests.vm.target import ALL

ROUNDS = 20 if ALL else 4


def assert_away(host: BenchHost) -> None:
    """All functions are on vfio-pci, and a VMM could open the group."""
    assert set(host.drivers()) == {"vfio-pci"}
    host.run("for g in /dev/vfio/[0-9]*; do exec 3<>$g && exec 3>&-; done; ls /dev/vfio/[0-9]*")
    status = host.status()
    assert status["state"] == "detached"


def test_there_and_back(host: BenchHost) -> None:
    before = host.snapshot()
    weston = host.process("weston")
    host.handoff()
    assert_away(host)
    host.reclaim()
    assert difference(before, host.snapshot()) == []
    assert host.status()["state"] == "host"
    if not host.layout.ends_desktop:
        assert host.process("weston") == weston


def test_many_round_trips_on_one_boot(host: BenchHost) -> None:
    before = host.snapshot()
    for _ in range(ROUNDS):
        host.handoff()
        assert set(host.drivers()) == {"vfio-pci"}
        host.reclaim()
    assert difference(before, host.snapshot()) == []


def test_cpus_and_static_pages(dual: BenchHost) -> None:
    before = dual.snapshot()
    dual.handoff("cpus", "s", "0", "memory", "t", str(256 << 20), "hugepages", "s", "static")
    away = dual.snapshot()
    assert away["effective"] == {"init.scope": "0", "machine.slice": "", "system.slice": "0", "user.slice": "0"}
    pages = int(away["hugepages"]["/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"])
    assert pages == 128
    assert len(away["inhibitors"]) == 1
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


AFFINITIES = "for i in /proc/irq/*/smp_affinity_list; do echo $i $(cat $i); done"


def test_interrupts_and_workqueues(dual: BenchHost) -> None:
    settings = "[host]\\nconfine-interrupts = true\\nconfine-workqueues = true\\n"
    dual.run(f"printf '{settings}' > /etc/gpuhandoff/conf.d/confine.toml; systemctl reload gpuhandoffd")
    before, affinities = dual.snapshot(), dual.run(AFFINITIES).output.splitlines()
    dual.handoff("cpus", "s", "0")
    assert dual.snapshot()["workqueues"] == "1"
    moved = set(affinities) - {*dual.run(AFFINITIES).output.splitlines()}
    assert moved, "no interrupt was moved"
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []
    kept = {line.split()[0]: line for line in dual.run(AFFINITIES).output.splitlines()}
    assert [line for line in affinities if kept.get(line.split()[0], line) != line] == []


def test_transparent_pages_and_quiet(dual: BenchHost) -> None:
    dual.run("printf '[host]\\nquiet-processes = [\"weston-keyboard\"]\\n' > /etc/gpuhandoff/conf.d/quiet.toml")
    dual.run("echo never > /sys/kernel/mm/transparent_hugepage/enabled; systemctl reload gpuhandoffd")
    before = dual.snapshot()
    dual.handoff("memory", "t", str(256 << 20), "hugepages", "s", "transparent", "quiet", "b", "true")
    away = dual.snapshot()
    assert "[madvise]" in away["thp"]["enabled"]
    assert away["stopped"] == ["weston-keyboard"]
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_moves_of_others_are_announced_and_seen(dual: BenchHost) -> None:
    sound = dual.layout.functions[1]
    signals = Signals(dual)
    dual.run(f"echo {sound} > /sys/bus/pci/drivers/snd_hda_intel/unbind")
    dual.run(f"echo {sound} > /sys/bus/pci/drivers_probe")
    gpu = dual.gpu_driver_moves()
    moves = signals.heard("DriverChanged")
    assert (sound, "snd_hda_intel", "") in moves
    assert (sound, "", "snd_hda_intel") in moves
    assert gpu == ["foreign", "host"]


def test_the_journal_has_our_fields(dual: BenchHost) -> None:
    dual.handoff()
    dual.reclaim()
    found = dual.run(f"journalctl -o cat GPU={dual.layout.gpu} STEP=bind-vfio --no-pager").output
    assert "vfio-pci" in found
