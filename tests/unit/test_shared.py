"""Work that is shared by all who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from gpuhandoff.service.shared import Shared


class Works:
    """Pieces of work that end when they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends: list[asyncio.Event] = []

    def named(self, name: str) -> Callable[[], Coroutine[None, None, str]]:
        """Return work that returns its name and how many have begun before it."""

        async def work() -> str:
            number = len(self.begun)
            self.begun.append(name)
            end = asyncio.Event()
            self._ends.append(end)
            await end.wait()
            return f"{name} {number}"

        return work

    async def end(self) -> None:
        """Have what is at work end, and all that follows from that happen."""
        self._ends[-1].set()
        await settle()


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_crowd_is_one() -> None:
    works, shared = Works(), Shared[str]()
    first = asyncio.create_task(shared.share("look", works.named("look")))
    await settle()
    crowd = [asyncio.create_task(shared.share("look", works.named("look"))) for _ in range(256)]
    other = asyncio.create_task(shared.share("other", works.named("other")))
    await settle()
    assert works.begun == ["look"]
    for _ in range(3):
        await works.end()
    assert await first == "look 0"
    assert {await one for one in crowd} == {"look 1"}  # none of them got what had begun before it asked
    assert await other == "other 2"
    assert works.begun == ["look", "look", "other"]


async def test_who_leaves_takes_nothing_away() -> None:
    works, shared = Works(), Shared[str]()
    leaves, stays = (asyncio.create_task(shared.share("look", works.named("look"))) for _ in range(2))
    await settle()
    leaves.cancel()
    await works.end()
    assert await stays == "look 0"
    assert leaves.cancelled()


async def test_what_fails_fails_for_all_and_the_next_is_done() -> None:
    async def fail() -> str:
        raise OSError("broken")

    works, shared = Works(), Shared[str]()
    asked = [asyncio.create_task(shared.share("look", fail)) for _ in range(2)]
    for one in asked:
        with pytest.raises(OSError, match="broken"):
            await one
    following = asyncio.create_task(shared.share("look", works.named("look")))
    await settle()
    await works.end()
    assert await following == "look 0"


async def test_stopping_leaves_nothing_at_work() -> None:
    works, shared = Works(), Shared[str]()
    asked = [asyncio.create_task(shared.share(name, works.named(name))) for name in ("one", "two")]
    await settle()
    await shared.stop()
    assert works.begun == ["one"]
    assert [type(error) for error in await asyncio.gather(*asked, return_exceptions=True)] == [asyncio.CancelledError] * 2
