"""History on a disk that is damaged, full, slow or not there: moves go on without it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.history.file import NAME, HistoryFile
from gpuhandoff.history.line import write
from gpuhandoff.history.move import Move
from gpuhandoff.model.address import PciAddress
from gpuhandoff.service import chronicle
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import igpu_dgpu
from tests.support.history_told import GPU, history, kept, started, told
from tests.support.product import Product


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
