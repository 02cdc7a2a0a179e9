"""The power goes in the middle of a handoff, and while the GPU is away: the next boot is like any other boot.

What it shows is compared with a boot of the same host before which no GPU was moved.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from typing import Any

from tests.vm.bench_host import BenchHost, Snapshot, difference
from tests.vm.target import strike

BOOTED = "booted"


@functools.cache
def booted(host: BenchHost) -> Snapshot:
    """Boot a host that has the package installed, keep it as a snapshot of the whole machine, and return what it shows."""
    host.run("sync")  # the installation is not what the power is cut in
    boot(host)
    host.save(BOOTED)
    return host.snapshot()


def boot(host: BenchHost) -> None:
    """Cut the power, and wait for what the next boot starts."""
    before = boot_id(host)
    host.machine.cut_power()
    assert boot_id(host) != before
    host.settle()


def boot_id(host: BenchHost) -> str:
    """Return what names a boot."""
    return host.run("cat /proc/sys/kernel/random/boot_id").output


def unnumbered(snapshot: Snapshot) -> Snapshot:
    """Return it without the numbers that cards get in the order in which udev's workers load their drivers."""
    functions = {one: {**shown, "children": _bare(shown["children"].split())} for one, shown in snapshot["pci"].items()}
    return {
        **snapshot,
        "pci": functions,
        "fb": _bare(snapshot["fb"].splitlines()),
        "dri": _bare(snapshot["dri"]),
        "snd": _bare(snapshot["snd"]),
        "connectors": _bare(f"{name} {status}" for name, status in snapshot["connectors"].items()),
    }


def _bare(names: Iterable[str]) -> list[str]:
    return sorted(re.sub(r"\d+", "N", name) for name in names)


def assert_as_after_any_boot(host: BenchHost, expected: Snapshot) -> None:
    """Nothing tells that a GPU had been moved."""
    now = host.snapshot()
    assert difference(unnumbered(expected), unnumbered(now)) == []
    assert now["journals"] == []
    assert host.state() == "host"


def newest(host: BenchHost) -> dict[str, Any]:
    """Return the newest move that history tells of."""
    return dict(json.loads(host.run("gpuhandoff history --json").output)["moves"][0])


def test_while_neither_driver_has_the_gpu(host: BenchHost) -> None:
    expected = booted(host)
    host.restore(BOOTED)
    lines = strike(host, "Handoff", "never")["lines"]
    host.restore(BOOTED)
    between = next(number for number, line in enumerate(lines, 1) if line.endswith("bind-vfio"))
    assert strike(host, "Handoff", "stop", between)["stopped"]
    assert "vfio-pci" not in host.drivers()
    assert host.snapshot()["journals"] == [f"{host.layout.gpu}.journal"]
    boot(host)
    assert_as_after_any_boot(host, expected)
    told = newest(host)
    assert (told["gpu"], told["operation"], told["outcome"]) == (host.layout.gpu, "handoff", "interrupted")


def test_while_the_gpu_is_away(dual: BenchHost) -> None:
    expected = booted(dual)
    dual.restore(BOOTED)
    dual.handoff("cpus", "s", "0", "memory", "t", str(256 << 20), "hugepages", "s", "static")
    assert dual.state() == "detached"
    boot(dual)
    assert_as_after_any_boot(dual, expected)
    told = newest(dual)
    assert (told["gpu"], told["operation"], told["outcome"], told["back"]) == (dual.layout.gpu, "handoff", "done", "reboot")
