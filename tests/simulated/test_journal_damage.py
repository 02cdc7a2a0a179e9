"""Journals that are torn, damaged, unreadable or cannot be written: recovered or refused with a reason, no exception."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.transaction.record import parse
from tests.support.fault_matrix import ALL
from tests.support.journal_disk import Disk, disk
from tests.support.product import Product

ADDRESS = PciAddress.parse(GPU)
EVERY_LINE = EVERY_BYTE = bool(os.environ.get(ALL))
"""Try a whole machine at every byte. Else at the edges and in the middle of each line: at all other bytes the text says the
same, as the first test here proves for every one of them."""
MACHINES: dict[str, Callable[[], Awaitable[SimulatedMachine]]] = {"single": single_nvidia, "dual": igpu_dgpu}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("gpuhandoff")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


async def started(machine: str, directory: Path) -> Product:
    return await Product(await MACHINES[machine](), directory / "run").start()


async def there_and_back(machine: str, directory: Path, failing: Disk) -> tuple[str, int]:
    """Return the text of the journal just before it is removed, and how much of it was there before the way back."""
    product = await started(machine, directory)
    await product.handoff(GPU)
    journal = product.directory / f"{GPU}.journal"
    there = len(journal.read_bytes())
    failing.read_only = True
    with pytest.raises(RemoteError):
        await product.reclaim(GPU)
    failing.forget()
    text = journal.read_text()
    await product.stop()
    return text, there


async def judged(product: Product, before: dict[str, object]) -> str:
    """Have a daemon deal with what it finds, and return the end."""
    if product.daemon is None:
        await product.start_daemon()
    await asyncio.sleep(3)
    status = await product.status(GPU)
    end = "restored"
    if status["state"] == "detached":
        end = "done"
        await product.reclaim(GPU)
        await asyncio.sleep(3)
    assert (await product.status(GPU))["state"] == "host", status
    assert differences(before, product.machine.snapshot()) == []
    assert product.journals() == []
    await product.stop()
    return end


@pytest.mark.parametrize("machine", MACHINES)
def test_the_text_of_a_journal_torn_at_every_byte(machine: str, tmp_path: Path) -> None:
    with disk() as failing:
        text, _ = run(there_and_back(machine, tmp_path, failing))
    assert text.count("\n") > 20
    for length in range(len(text) + 1):
        torn = text[:length]
        whole = torn[: torn.rfind("\n") + 1]
        last = torn[len(whole) :]
        complete = bool(last) and text[length : length + 1] == "\n"
        assert parse(torn, ADDRESS) == parse(whole + last if complete else whole, ADDRESS), length


@pytest.mark.parametrize("direction", ["handoff", "reclaim"])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_daemon_that_died_in_the_middle_of_a_line(machine: str, direction: str, tmp_path: Path) -> None:
    """The machine is as it was when that byte was written; the next daemon finds it so."""

    async def one(offset: int) -> str:
        product = await started(machine, tmp_path / str(offset))
        before = product.machine.snapshot()
        failing.written, failing.ends_at, failing.kill = 0, offset, product.kill
        try:
            await product.handoff(GPU)
            await product.reclaim(GPU)
        except RemoteError:
            assert product.daemon is None
        failing.forget()
        return await judged(product, before)

    with disk() as failing:
        text, there = run(there_and_back(machine, tmp_path, failing))
        first, last = (0, there) if direction == "handoff" else (there, len(text) - 1)
        ends = [place for place, letter in enumerate(text) if letter == "\n"]
        middles = {(start + end) // 2 for start, end in zip([0, *ends], ends, strict=False)}
        telling = {first, *middles, *(place + near for place in ends for near in (0, 1))}
        tried = {offset: run(one(offset)) for offset in range(first, last) if EVERY_BYTE or offset in telling}
    assert {end for offset, end in tried.items() if offset < there - 1} <= {"restored"}, "what is not complete is undone"
    assert set(tried.values()) == {"restored", "done"}, "complete without its line's end"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_journal_that_lost_its_end_while_the_gpu_was_away(machine: str, tmp_path: Path) -> None:
    """More than a crash can do: what the lost lines changed is unknown. Recovered as far as is known, or stuck and why."""

    async def one(kept: int) -> None:
        product = await started(machine, tmp_path / str(kept))
        await product.handoff(GPU)
        product.kill()
        journal = product.directory / f"{GPU}.journal"
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(lines[:kept]) + (lines[kept][: len(lines[kept]) // 2] if kept < len(lines) else ""))
        await product.start_daemon()
        await asyncio.sleep(1)
        status = await product.status(GPU)
        if status["state"] != "host":
            assert status["reason"]
            with contextlib.suppress(RemoteError):
                await product.reclaim(GPU)
            await asyncio.sleep(1)
            status = await product.status(GPU)
        assert status["state"] == "host" or (status["state"] == "stuck" and "is stuck at" in status["reason"]), status
        ends[status["state"]] += 1
        await product.stop()

    ends: Counter[str] = Counter()
    with disk() as failing:
        text, there = run(there_and_back(machine, tmp_path / "whole", failing))
    for kept in range(text[:there].count("\n")):
        run(one(kept))
    assert ends["host"] > ends["stuck"]


async def damage(product: Product, content: bytes | None) -> None:
    """Hand the GPU off, kill the daemon, put other content in the journal's place, start a daemon."""
    await product.handoff(GPU)
    product.kill()
    journal = product.directory / f"{GPU}.journal"
    if content is None:
        journal.unlink()
        journal.mkdir()
    else:
        journal.write_bytes(content)
    await product.start_daemon()
    await asyncio.sleep(1)


GARBAGE: dict[str, bytes | None] = {
    "empty": b"",
    "zeroes": bytes(4096),
    "random": random.Random(3).randbytes(5000),
    "no JSON": b"hello\nworld\n",
    "other JSON": b'[1, 2]\n"x"\n{"a": {"b": []}}\n',
    "deep JSON": b"[" * 100_000 + b"\n",
    "another version": b'{"journal": 999, "what": "is this"}\n{"future": true}\n',
    "a wrong header": b'{"journal": 2, "boot": 7, "steps": "many"}\n',
    "a directory": None,
}


@in_virtual_time
@pytest.mark.parametrize("kind", GARBAGE)
async def test_a_journal_that_cannot_be_understood(kind: str, tmp_path: Path) -> None:
    product = await started("dual", tmp_path)
    functions = product.machine.snapshot()["functions"]
    await damage(product, GARBAGE[kind])
    status = await product.status(GPU)
    assert status["state"] in {"detached", "stuck"}
    assert status["reason"]
    await product.reclaim(GPU)
    await asyncio.sleep(1)
    assert (await product.status(GPU))["state"] == "host"
    found = product.machine.snapshot()["functions"]
    assert {name: one["driver"] for name, one in found.items()} == {name: one["driver"] for name, one in functions.items()}
    await product.stop()


@in_virtual_time
async def test_a_journal_of_another_boot_is_forgotten(tmp_path: Path) -> None:
    product = await started("single", tmp_path)
    await product.handoff(GPU)
    product.kill()
    journal = product.directory / f"{GPU}.journal"
    text = journal.read_text()
    await product.reboot(single_nvidia)
    before = product.machine.snapshot()
    product.kill()
    product.directory.mkdir(exist_ok=True)
    journal.write_text(text)
    assert await judged(product, before) == "restored"


@in_virtual_time
async def test_a_journal_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = await started("dual", tmp_path)
    before = product.machine.snapshot()
    await product.handoff(GPU)
    product.kill()
    with disk() as failing, monkeypatch.context() as patched:

        def refused(path: object, flags: int, mode: int = 0o777) -> int:
            if str(path).endswith(".journal"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return os.open(str(path), flags, mode)

        patched.setattr(failing, "open", refused, raising=False)
        await product.start_daemon()
        status = await product.status(GPU)
        assert status["state"] in {"detached", "stuck"}
        assert status["reason"]
        product.kill()
    aside = next(product.directory.iterdir())
    aside.rename(product.directory / f"{GPU}.journal")
    assert await judged(product, before) == "done"


ERRNOS = (errno.ENOSPC, errno.EROFS, errno.EIO)


@pytest.mark.parametrize("number", ERRNOS)
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_disk_that_takes_no_more_lines(machine: str, for_good: bool, number: int, tmp_path: Path) -> None:
    """A full disk still lets files be removed, a read-only one does not: then the GPU is stuck until that is possible.

    Every day each line is the first that one of the three refuses, and the first line of all is it for each.
    """

    async def one(line: int) -> tuple[str, bool]:
        product = await started(machine, tmp_path / str(line))
        before = product.machine.snapshot()
        failing.lines = 0
        failing.refuses = lambda now: number if (now >= line if for_good else now == line) else 0
        failing.read_only = False
        told = said = ""
        reached = False
        for move in (product.handoff, product.reclaim):
            try:
                await move(GPU)
            except RemoteError as error:
                told, said = error.name.rpartition(".")[2], error.message
                break
            finally:
                reached = failing.lines >= line
                failing.read_only = for_good and number == errno.EROFS and reached
        assert not told or os.strerror(number) in said, said
        await asyncio.sleep(3)
        state = (await product.status(GPU))["state"]
        failing.forget()
        if told == "Stuck":
            assert state == "stuck"
            await product.reclaim(GPU)
            await asyncio.sleep(3)
        assert await judged(product, before) == "restored"
        return told, reached

    with disk() as failing:
        text, _ = run(there_and_back(machine, tmp_path, failing))
        lines = text.count("\n")
        mine = range(1, lines + 1) if EVERY_LINE else {1, *range(1 + ERRNOS.index(number), lines + 1, len(ERRNOS))}
        told = [run(one(line)) for line in sorted(mine)]
    assert told[0][0] == "Unsupported"
    assert {name for name, _ in told} <= {"Unsupported", "RolledBack", "Stuck", ""}
    assert all(reached for _, reached in told)


def test_every_line_is_one_that_is_known(tmp_path: Path) -> None:
    with disk() as failing:
        text, _ = run(there_and_back("single", tmp_path, failing))
    known = {"journal", "will", "did", "held", "undoing", "undone", "stuck", "guest"}
    assert {next(iter(json.loads(line))) for line in text.splitlines()} <= known
