"""History of the whole product: what was done, refused, undone, cut short, and how it looks after deaths and reboots."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.history.file import NAME, HistoryFile
from gpuhandoff.history.line import read, write
from gpuhandoff.history.move import Move
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.service import chronicle
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.faults import before as just_before
from gpuhandoff.simulation.faults import refuse
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import igpu_dgpu, single_nvidia, twin
from tests.support.product import Product

GPU = "0000:01:00.0"
BOOT = "/proc/sys/kernel/random/boot_id"


async def started(directory: Path, machine: SimulatedMachine | None = None) -> Product:
    """Return a product that keeps its history."""
    return await Product(machine or await single_nvidia(), directory / "run", state_directory=directory / "state").start()


async def history(product: Product, gpu: str = "", count: int = 0) -> list[dict[str, Any]]:
    """Return what History answers."""
    reply = await product.call("History", "su", gpu, count)
    return [{key: variant.value for key, variant in move.items()} for move in reply]


async def told(product: Product) -> list[tuple[str, str, str, str]]:
    """Return the most important of it, oldest first."""
    moves = reversed(await history(product))
    return [(move["operation"], move["why"], move["outcome"], move["back"]) for move in moves]


async def rebooted() -> SimulatedMachine:
    """Return the machine after a reboot."""
    machine = await single_nvidia()
    machine.tree.text(BOOT, "another boot\n")
    return machine


def kept(directory: Path) -> list[Move]:
    """Return the moves in the file."""
    found = [read(line) for line in HistoryFile(directory / "state").lines()]
    return [move for move in found if move is not None]


@in_virtual_time
async def test_there_and_back_with_all_its_steps(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU, vm=Variant("s", "win11"))
    await product.reclaim(GPU)
    back, out = await history(product)
    assert (out["gpu"], out["name"], out["vm"], out["uid"]) == (GPU, "NVIDIA AD104 [GeForce RTX 4070]", "win11", 1000)
    assert (out["operation"], out["why"], out["outcome"], out["back"]) == ("handoff", "asked", "done", "reclaimed")
    assert (back["operation"], back["outcome"], back["back"], back["message"]) == ("reclaim", "done", "", "")
    steps = [name for name, _, _ in out["steps"]]
    assert steps[0] == "inhibit-sleep"
    assert {"stop-display", "unload-driver", "bind-vfio"} <= set(steps)
    assert [name for name, _, _ in back["steps"]] == steps[::-1]
    assert {phase for _, phase, _ in out["steps"]} == {"done"}
    assert {phase for _, phase, _ in back["steps"]} == {"undone"}
    seconds = {name: taken for name, _, taken in out["steps"]}
    assert seconds["unload-driver"] > 0.1
    assert sum(seconds.values()) == pytest.approx(out["seconds"], abs=0.02)
    assert out["began"] < back["began"]
    await product.stop()


@in_virtual_time
async def test_a_move_is_on_the_disk_before_its_first_step(tmp_path: Path) -> None:
    product = await started(tmp_path)
    seen: list[list[str]] = []
    look = just_before(lambda: seen.append([move.outcome for move in kept(tmp_path)]))
    product.machine.faults.set(look, target="Inhibit", detail="block")
    await product.handoff(GPU)
    assert seen == [[""]]
    product.machine.faults.set(look, kind="write")
    await product.reclaim(GPU)
    assert seen[1:] == [["", "done", ""]]
    await product.stop()
    assert [move.outcome for move in kept(tmp_path)] == ["", "done", "", "done"]


@in_virtual_time
async def test_a_rollback_tells_what_failed_and_what_was_undone(tmp_path: Path) -> None:
    product = await started(tmp_path)
    product.machine.faults.set(refuse(errno.EIO), kind="write", target="power/control")
    with pytest.raises(RemoteError) as caught:
        await product.handoff(GPU)
    (move,) = await history(product)
    assert (move["outcome"], move["message"]) == ("rolled-back", caught.value.message)
    phases = [(name, phase) for name, phase, _ in move["steps"]]
    assert ("bind-vfio", "apply") in phases
    assert phases.index(("unload-driver", "done")) < phases.index(("bind-vfio", "apply"))
    assert phases[-1] == ("inhibit-sleep", "undone")
    await product.stop()


@in_virtual_time
async def test_a_cancelled_handoff(tmp_path: Path) -> None:
    product = await started(tmp_path)

    def cancel() -> None:
        job = product.jobs.running(PciAddress.parse(GPU))
        assert job is not None
        product.jobs.cancel(job)

    product.machine.faults.set(just_before(cancel), nth=20)
    with pytest.raises(RemoteError):
        await product.handoff(GPU)
    assert await told(product) == [("handoff", "asked", "cancelled", "")]
    await product.stop()


@in_virtual_time
async def test_a_refusal_is_one_line_and_the_same_one_is_not_repeated(tmp_path: Path) -> None:
    product = await started(tmp_path)
    for _ in range(3):
        with pytest.raises(RemoteError, match="ends"):
            await product.call("Handoff", "sa{sv}", GPU, {})
    (move,) = await history(product)
    assert (move["outcome"], move["steps"], move["seconds"]) == ("refused", [], 0.0)
    assert "the graphical session of alice ends" in move["message"]
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {"vm": Variant("s", "other")})
    assert len(await history(product)) == 2
    await product.stop()
    assert [one.outcome for one in kept(tmp_path)] == ["refused", "refused"]


@in_virtual_time
async def test_what_is_no_move(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU, **{"dry-run": Variant("b", True)})
    await product.call("Plan", "ssa{sv}", GPU, "handoff", {"stop-display": Variant("b", True)})
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {"dry-run": Variant("b", True)})
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", "0000:77:00.0", {})
    product.machine.polkit.deny("org.gpuhandoff.handoff")
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {})
    assert await history(product) == []
    await product.stop()
    assert not (tmp_path / "state" / NAME).exists()


@in_virtual_time
async def test_a_lease_that_ended(tmp_path: Path) -> None:
    product = await started(tmp_path)
    borrower = product.broker.connect(uid=1001)
    options = {"stop-display": Variant("b", True), "lease": Variant("b", True)}
    await borrower.call(
        "org.gpuhandoff.Manager", "/org/gpuhandoff/Manager", "org.gpuhandoff.Manager", "Handoff", "sa{sv}", (GPU, options)
    )
    await borrower.close()
    await asyncio.sleep(0.1)
    await product.idle()
    assert await told(product) == [("handoff", "asked", "done", "reclaimed"), ("reclaim", "lease-ended", "done", "")]
    assert [move["uid"] for move in await history(product)] == [0, 1001]
    await product.stop()


@in_virtual_time
async def test_one_gpu_or_all_and_how_many(tmp_path: Path) -> None:
    product = await started(tmp_path, await twin())
    other = "0000:02:00.0"
    await product.handoff(other)
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {})
    await product.reclaim(other)
    assert [move["gpu"] for move in await history(product)] == [other, GPU, other]
    assert [move["operation"] for move in await history(product, "02:00.1")] == ["reclaim", "handoff"]
    assert [move["gpu"] for move in await history(product, "", 2)] == [other, GPU]
    assert await history(product, "0000:77:00.0") == []
    with pytest.raises(RemoteError, match="not a PCI address"):
        await history(product, "card")
    await product.stop()


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


@in_virtual_time
async def test_garbage_in_the_file_is_told_of_once_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU)
    await product.reclaim(GPU)
    await product.stop()
    path = tmp_path / "state" / NAME
    path.write_bytes(b"\x00garbage\n" + path.read_bytes() + b'{"history":1,"boot"')
    caplog.clear()
    await product.start_daemon()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "2 lines of the history make no sense; the others are kept"
    ]
    assert len(await history(product)) == 2
    await product.handoff(GPU)
    await product.stop()
    assert [move.outcome for move in kept(tmp_path)] == ["", "done", "", "done", "", "done"]


class ThreadOnly:
    """Notes in which thread the disk is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: dict[str, set[threading.Thread]] = {}
        for name in ("lines", "append", "replace"):
            monkeypatch.setattr(HistoryFile, name, self._noting(name, getattr(HistoryFile, name)))

    def _noting(self, name: str, function: Any) -> Any:
        def noting(*arguments: Any, **named: Any) -> Any:
            self.threads.setdefault(name, set()).add(threading.current_thread())
            return function(*arguments, **named)

        return noting


@in_virtual_time
async def test_the_file_stays_small_and_keeps_what_is_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "LINES", 20)
    old = [Move("b", number, number, PciAddress.parse(GPU), "", "reclaim", "asked", "", 0, "done") for number in range(300)]
    for move in old:
        HistoryFile(tmp_path / "state").append(write(move), flush=False)
    product = await started(tmp_path, await igpu_dgpu())
    assert [move["job"] for move in await history(product)] == list(range(299, 99, -1))
    for _ in range(15):
        await product.call("Handoff", "sa{sv}", GPU, {})
        await product.call("Reclaim", "sa{sv}", GPU, {})
    await product.stop()
    found = kept(tmp_path)
    assert [move.job for move in found if move.boot_id == "b"] == list(range(130, 300))
    assert len([move for move in found if move.boot_id != "b" and move.outcome]) == 30


@in_virtual_time
async def test_nobody_waits_for_the_disk_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = ThreadOnly(monkeypatch).threads
    monkeypatch.setattr(chronicle, "LINES", 3)
    product = await started(tmp_path, await igpu_dgpu())
    await product.call("Handoff", "sa{sv}", GPU, {})
    await product.call("Reclaim", "sa{sv}", GPU, {})
    await product.stop()
    assert set(threads) == {"lines", "append", "replace"}
    assert threading.main_thread() not in set().union(*threads.values())


def fail(number: int) -> Any:
    """Return a function of the disk that fails."""

    def failing(*arguments: Any, **named: Any) -> int:
        raise OSError(number, os.strerror(number))

    return failing


@pytest.mark.parametrize(
    ("name", "number"), [("append", errno.EROFS), ("append", errno.ENOSPC), ("append", errno.EIO), ("lines", errno.EIO)]
)
@in_virtual_time
async def test_a_disk_that_fails_is_told_of_once_and_stands_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, number: int
) -> None:
    monkeypatch.setattr(HistoryFile, name, fail(number))
    product = await started(tmp_path, await igpu_dgpu())
    for _ in range(2):
        await product.call("Handoff", "sa{sv}", GPU, {})
        await product.call("Reclaim", "sa{sv}", GPU, {})
    assert [outcome for _, _, outcome, _ in await told(product)] == ["done"] * 4
    await product.stop()
    complaints = [record.message for record in caplog.records if "history" in record.message]
    assert len(complaints) == 1
    assert os.strerror(number) in complaints[0]


@in_virtual_time
async def test_what_could_not_be_read_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state" / NAME
    path.parent.mkdir()
    path.write_bytes(b"what an EIO hides\n")
    monkeypatch.setattr(chronicle, "LINES", 1)
    monkeypatch.setattr(HistoryFile, "lines", fail(errno.EIO))
    product = await started(tmp_path)
    await product.handoff(GPU)
    await product.stop()
    assert path.read_bytes().startswith(b"what an EIO hides\n")


def test_a_disk_that_does_not_answer_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time: a clock that waits for threads would wait for this one."""
    answer = threading.Event()
    monkeypatch.setattr(chronicle, "PATIENCE", 0.01)
    monkeypatch.setattr(HistoryFile, "append", lambda *arguments, **named: answer.wait(60))

    async def main() -> None:
        try:
            async with asyncio.timeout(15):
                product = await started(tmp_path, await igpu_dgpu())
                await product.call("Handoff", "sa{sv}", GPU, {})
                assert await told(product) == [("handoff", "asked", "done", "")]
                await product.call("Reclaim", "sa{sv}", GPU, {})
                await product.stop()
        finally:
            answer.set()

    asyncio.run(main())


@in_virtual_time
async def test_without_a_directory_that_can_be_made_history_is_what_the_daemon_remembers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    product = Product(await igpu_dgpu(), tmp_path / "run", state_directory=tmp_path / "no" / "such" / "place")
    await product.start()
    await product.call("Handoff", "sa{sv}", GPU, {})
    await product.call("Reclaim", "sa{sv}", GPU, {})
    assert len(await history(product)) == 2
    await product.stop()
    assert len([record for record in caplog.records if "history" in record.message]) == 1
    assert not (tmp_path / "no").exists()
