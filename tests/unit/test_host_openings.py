"""Who opens what, on this very kernel."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gpuhandoff.host.openings import MachineOpenings

ROOM = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
"""Events that wait, for one who watches."""


@pytest.fixture
async def openings() -> AsyncIterator[MachineOpenings]:
    """What watches, until the test ends."""
    watching = MachineOpenings()
    yield watching
    watching.close()


class Ear:
    """What is called back, and how often."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self) -> None:
        """Count."""
        self.heard += 1

    async def hears(self, does: Callable[[], object]) -> bool:
        """Do something and tell whether it was heard."""
        before = self.heard
        does()
        for _ in range(3):  # the loop reads what the kernel has told meanwhile
            await asyncio.sleep(0)
        return self.heard > before


def opening(path: Path) -> Callable[[], None]:
    """Return what opens a file and closes it."""
    return lambda: os.close(os.open(path, os.O_RDONLY))


async def test_opening_and_closing_are_heard_but_of_this_node_only(openings: MachineOpenings, tmp_path: Path) -> None:
    node, other = tmp_path / "7", tmp_path / "77"
    node.touch()
    other.touch()
    ear = Ear()
    openings.watch(str(node), ear)
    held = -1

    def hold() -> None:
        nonlocal held
        held = os.open(node, os.O_RDONLY)

    assert await ear.hears(hold)
    assert await ear.hears(lambda: os.close(held))
    assert not await ear.hears(opening(other))
    assert not await ear.hears(lambda: os.listdir(tmp_path))


async def test_the_node_itself_is_not_touched(openings: MachineOpenings, tmp_path: Path) -> None:
    """The unit's device policy would deny that: it need not even be there, and may be another one later."""
    node = tmp_path / "7"
    ear = Ear()
    openings.watch(str(node), ear)
    node.touch()
    assert await ear.hears(opening(node))
    node.unlink()
    node.touch()
    assert await ear.hears(opening(node))


async def test_in_a_directory_that_is_not_there_nothing_is_watched(openings: MachineOpenings, tmp_path: Path) -> None:
    ear = Ear()
    unwatch = openings.watch(str(tmp_path / "devices/vfio0"), ear)
    unwatch()
    assert ear.heard == 0


async def test_two_nodes_of_one_directory(openings: MachineOpenings, tmp_path: Path) -> None:
    first, second = tmp_path / "7", tmp_path / "8"
    first.touch()
    second.touch()
    ears = Ear(), Ear()
    unwatch = openings.watch(str(first), ears[0])
    openings.watch(str(second), ears[1])
    assert await ears[0].hears(opening(first))
    unwatch()
    unwatch()
    assert not await ears[0].hears(opening(first))
    assert await ears[1].hears(opening(second))


async def test_two_who_watch_one_node(openings: MachineOpenings, tmp_path: Path) -> None:
    node = tmp_path / "7"
    node.touch()
    ears = Ear(), Ear()
    unwatch = openings.watch(str(node), ears[0])
    openings.watch(str(node), ears[1])
    unwatch()
    assert await ears[1].hears(opening(node))
    assert ears[0].heard == 0


async def test_a_directory_that_comes_again(openings: MachineOpenings, tmp_path: Path) -> None:
    """/dev/vfio/devices goes with the last device."""
    directory = tmp_path / "devices"
    directory.mkdir()
    node = directory / "vfio0"
    ear = Ear()
    unwatch = openings.watch(str(node), ear)
    assert await ear.hears(directory.rmdir)
    unwatch()
    directory.mkdir()
    node.touch()
    openings.watch(str(node), ear)
    assert await ear.hears(opening(node))


async def test_what_the_kernel_had_no_room_for_is_looked_at(openings: MachineOpenings, tmp_path: Path) -> None:
    noisy, quiet = tmp_path / "a/7", tmp_path / "b/7"
    for node in (noisy, quiet):
        node.parent.mkdir()
        node.touch()
    ear = Ear()
    openings.watch(str(noisy), lambda: None)
    openings.watch(str(quiet), ear)
    for _ in range(ROOM):
        opening(noisy)()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert ear.heard
