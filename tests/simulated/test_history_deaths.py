"""History where the daemon or the machine died in the middle: what was under way is known afterwards."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gpuhandoff.history.file import NAME
from gpuhandoff.history.line import write
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.faults import before as just_before
from gpuhandoff.simulation.faults import refuse
from gpuhandoff.simulation.scenarios import single_nvidia
from tests.support.history_told import GPU, history, kept, rebooted, started, told


async def cut(directory: Path, nth: int) -> bool:
    """Hand off, and keep what is on the disk at the machine's nth operation; tell whether there was one."""
    (directory / "before").mkdir(parents=True)
    product = await started(directory / "before")
    there = False

    def keep() -> None:
        nonlocal there
        there = True
        for name in ("run", "state"):
            if (directory / "before" / name).exists():
                shutil.copytree(directory / "before" / name, directory / "after" / name)

    product.machine.faults.set(just_before(keep), nth=nth)
    await product.handoff(GPU)
    await product.stop()
    return there


def test_a_power_cut_at_any_operation_is_known_after_it(tmp_path: Path) -> None:
    async def after(directory: Path) -> list[tuple[str, str, str, str]]:
        product = await started(directory / "after", await rebooted())
        found = await told(product)
        assert product.journals() == []
        await product.stop()
        return found

    found: list[list[tuple[str, str, str, str]]] = []
    while run(cut(tmp_path / str(len(found)), 1 + 5 * len(found))):
        found.append(run(after(tmp_path / str(len(found)))))
    interrupted = [("handoff", "asked", "interrupted", "reboot")]
    complete = [("handoff", "asked", "done", "reboot")]  # while it looked at what it had done
    order = [one for one, before in zip(found, [None, *found], strict=False) if one != before]
    assert order in ([[], interrupted], [[], interrupted, complete])
    assert found.count(interrupted) > 10


def test_a_daemon_that_is_killed_at_any_operation_is_followed_by_a_recovery(tmp_path: Path) -> None:
    async def after(directory: Path) -> tuple[list[tuple[str, str, str, str]], bool]:
        product = await started(directory / "after")
        found = await told(product), product.journals() != []
        await product.stop()
        return found

    found: list[tuple[list[tuple[str, str, str, str]], bool]] = []
    while run(cut(tmp_path / str(len(found)), 1 + 5 * len(found))):
        found.append(run(after(tmp_path / str(len(found)))))
    undone = ([("handoff", "asked", "interrupted", "reclaimed"), ("reclaim", "recovery", "done", "")], False)
    taken_over = ([("handoff", "asked", "done", "")], True)  # while it looked at what it had done
    order = [one for one, before in zip(found, [None, *found], strict=False) if one != before]
    assert order == [([], False), undone, taken_over]
    assert found.count(undone) > 10


@in_virtual_time
async def test_killed_then_recovered_then_cut_off_in_a_reclaim(tmp_path: Path) -> None:
    """The same with real deaths, of the daemon and of the machine, one after the other."""
    product = await started(tmp_path)
    product.machine.faults.set(just_before(product.kill), kind="write", target="drivers_probe")
    with pytest.raises(RemoteError):
        await product.handoff(GPU)
    await product.start_daemon()
    undone = [("handoff", "asked", "interrupted", "reclaimed"), ("reclaim", "recovery", "done", "")]
    assert await told(product) == undone
    phases = [(name, phase) for name, phase, _ in (await history(product))[0]["steps"]]
    assert ("unload-driver", "undone") in phases
    product.machine.faults.clear()
    await product.handoff(GPU)
    product.machine.faults.set(just_before(product.kill), kind="load-module", target="nvidia")
    with pytest.raises(RemoteError):
        await product.reclaim(GPU)
    await product.reboot(single_nvidia)
    assert await told(product) == [
        *undone,
        ("handoff", "asked", "done", "reboot"),
        ("reclaim", "asked", "interrupted", "reboot"),
    ]
    await product.stop()


@in_virtual_time
async def test_a_gpu_that_was_away_during_a_reboot_came_back_by_it(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU)
    assert await told(product) == [("handoff", "asked", "done", "")]
    await product.stop()
    product = await started(tmp_path, await rebooted())
    assert await told(product) == [("handoff", "asked", "done", "reboot")]
    await product.stop()


@in_virtual_time
async def test_a_daemon_that_starts_while_a_gpu_is_away_takes_it_over_and_makes_no_move_of_that(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU)
    await product.stop()
    await product.start_daemon()
    await product.stop()
    await product.start_daemon()
    assert await told(product) == [("handoff", "asked", "done", "")]
    await product.reclaim(GPU)
    assert await told(product) == [("handoff", "asked", "done", "reclaimed"), ("reclaim", "asked", "done", "")]
    await product.stop()


@in_virtual_time
async def test_a_daemon_killed_before_it_could_note_that_all_is_in_place(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU)
    await product.stop()
    path = tmp_path / "state" / NAME
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])  # the beginning only
    await product.start_daemon()
    assert await told(product) == [("handoff", "asked", "done", "")]
    assert "could write this down" in (await history(product))[0]["message"]
    await product.reclaim(GPU)
    await product.stop()
    assert [move.outcome for move in kept(tmp_path)] == ["", "done", "", "done"]


@in_virtual_time
async def test_a_gpu_that_is_away_says_nothing_about_a_move_of_another_boot(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU)
    await product.stop()
    (begun,) = [move for move in kept(tmp_path) if not move.outcome]
    (tmp_path / "state" / NAME).write_bytes(write(replace(begun, boot_id="another boot")))
    await product.start_daemon()
    assert await told(product) == [("handoff", "asked", "interrupted", "reboot")]
    await product.stop()


@in_virtual_time
async def test_a_recovery_that_gets_stuck_says_so(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU)
    await product.stop()
    (journal,) = (tmp_path / "run").glob("*.journal")
    journal.write_text(journal.read_text() + '{"undoing":"reclaim"}\n')
    product.machine.faults.set(refuse(errno.EIO), kind="write", target="/vfio-pci/unbind", nth=0)
    await product.start_daemon()
    assert (await told(product))[-1] == ("reclaim", "recovery", "stuck", "")
    assert "is stuck at" in (await history(product))[0]["message"]
    await product.stop()
