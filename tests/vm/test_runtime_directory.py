"""/run is full or cannot be written, on a real system: without a journal nothing is begun, and what was begun is undone.

A line that cannot be written while a GPU is lent ends the handoff; while everything is undone it is only missing, as the
file is removed in the end.
"""

from __future__ import annotations

import pytest

from tests.vm.bench_host import KILL, BenchHost, difference
from tests.vm.target import chosen, prepared
from tests.vm.test_refusals import assert_refused

FILL = "dd if=/dev/zero of=/run/fill bs=64k 2>/dev/null; dd if=/dev/zero of=/run/fill bs=1 count=1 oflag=append conv=notrunc"
MOUNT = "nsenter --mount --target=$(systemctl show -P MainPID gpuhandoffd) mount -o remount,bind,{} /run/gpuhandoff"


def fill(host: BenchHost) -> None:
    """Leave no room in /run."""
    assert "No space left on device" in host.run(FILL, check=False).errors


def test_a_handoff_with_run_full(dual: BenchHost) -> None:
    fill(dual)
    before = dual.snapshot()
    assert_refused(dual.handoff(check=False), "Nothing was begun", "ENOSPC")
    assert difference(before, dual.snapshot()) == []
    dual.run("rm /run/fill")
    dual.handoff()
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_a_reclaim_with_run_full(dual: BenchHost) -> None:
    before = dual.snapshot()
    dual.handoff()
    fill(dual)
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_a_daemon_that_is_killed_with_run_full(dual: BenchHost) -> None:
    before = dual.snapshot()
    dual.handoff()
    fill(dual)
    dual.next_daemon(KILL)
    dual.wait_for_state("detached")
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_a_handoff_with_a_read_only_directory(dual: BenchHost) -> None:
    dual.run(MOUNT.format("ro"))
    before = dual.snapshot()
    assert_refused(dual.handoff(check=False), "Nothing was begun", "EROFS")
    assert difference(before, dual.snapshot()) == []


def test_a_reclaim_with_a_read_only_directory(dual: BenchHost) -> None:
    """What was undone could not be forgotten: the next daemon would undo it again. So nothing is begun."""
    before = dual.snapshot()
    dual.handoff()
    dual.run(MOUNT.format("ro"))
    away = dual.snapshot()
    assert_refused(dual.reclaim(check=False), "EROFS", "nothing is begun")
    assert difference(away, dual.snapshot()) == []
    dual.run(MOUNT.format("rw"))
    dual.reclaim()
    assert difference(before, dual.snapshot()) == []


def test_a_journal_that_nobody_can_read(dual: BenchHost) -> None:
    """It is set aside, and Reclaim gives the card back. What nobody knows any more stays: vfio's modules, no D3cold."""
    dual.run("modprobe -a vfio_pci vfio_iommu_type1")
    before = dual.snapshot()
    dual.handoff()
    dual.run(f"head -c 3000 /dev/urandom > /run/gpuhandoff/{dual.layout.gpu}.journal")
    dual.next_daemon(KILL)
    assert (dual.state(), "set aside" in dual.status()["reason"]) == ("detached", True)
    dual.reclaim()
    assert dual.state() == "host"
    assert difference(before, dual.snapshot()) == [f"pci: {dual.layout.gpu}: d3cold: '1' became '0'"]


@pytest.mark.parametrize("member", ["Handoff", "Reclaim"])
@pytest.mark.parametrize(("moment", "error"), [("full", "ENOSPC"), ("broken", "EIO")])
def test_from_each_line_on_the_journal_cannot_be_kept(dual: BenchHost, member: str, moment: str, error: str) -> None:
    struck = prepared(dual, member)
    wrong = {}
    for number, line in chosen(moment, struck.lines()):
        found = struck.strike(moment, number)
        differs = difference(struck.before, found["now"])
        if (error in found["errors"]) is not (member == "Handoff"):
            differs.append(f"{member} says {found['errors']!r}")
        if differs:
            wrong[f"{number} ({line})"] = [*differs, dual.log()]
    assert wrong == {}
