"""The steps that make memory for a guest: reclaimed, compacted, in huge pages."""

from __future__ import annotations

import errno

import pytest

from gpuhandoff.errors import RolledBackError, UnsupportedError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Effect, hang, lie, refuse
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.memory import HUGE
from gpuhandoff.simulation.scenarios import igpu_dgpu
from tests.support.step_cases import never_huge, static, transparent
from tests.support.steps import StepBench

THP = "/sys/kernel/mm/transparent_hugepage"


def writes(machine: SimulatedMachine, target: str) -> list[str]:
    """What was written to attributes of this name, in order."""
    return [one.detail for one in machine.faults.log if one.kind == "write" and one.target.endswith(target)]


# free-memory


@in_virtual_time
async def test_enough_memory_is_left_alone() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("free-memory", {"bytes": 1 << 30, "compact": False})
    assert [one for one in machine.faults.log if one.kind in {"write", "sync"}] == []


@in_virtual_time
async def test_memory_is_reclaimed_from_users_in_chunks_until_there_is_enough() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.memory.anonymous = 8 << 30
    machine.memory.cache = 0
    target = machine.memory.available + (1 << 30) + (1 << 20)
    await bench.apply("free-memory", {"bytes": target, "compact": False})
    assert machine.memory.available >= target
    chunks = [int(one) for one in writes(machine, "user.slice/memory.reclaim")]
    assert chunks == [512 << 20, 512 << 20, 1 << 20]
    assert writes(machine, "drop_caches") == []
    assert machine.faults.log[0].kind == "sync"


@in_virtual_time
async def test_where_reclaim_ends_caches_are_dropped_and_memory_is_compacted() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("free-memory", {"bytes": 64 << 30, "compact": True})
    assert writes(machine, "drop_caches") == ["3"]
    assert writes(machine, "compact_memory") == ["1"]
    assert machine.memory.fragmented == 0


@in_virtual_time
@pytest.mark.parametrize("target", ["/", "memory.reclaim", "drop_caches", "compact_memory"])
async def test_nothing_that_fails_here_fails_a_handoff(target: str, caplog: pytest.LogCaptureFixture) -> None:
    for fault in (refuse(errno.EINVAL), hang()):
        machine = await igpu_dgpu()
        bench = await StepBench.of(machine)
        machine.faults.set(fault, target=target, nth=0)
        await bench.apply("free-memory", {"bytes": 64 << 30, "compact": True})
        for pending in tuple(machine.operations):
            pending.cancel()
    assert "not all memory was freed" in caplog.text


# back-guest-memory


@in_virtual_time
async def test_pages_are_added_to_those_of_others_and_only_ours_are_given_back() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.memory.pages = 100
    await bench.apply("back-guest-memory", {"kind": "static", "bytes": (2 << 30) + 1, "size_kib": 2048})
    assert machine.memory.pages == 100 + 1025
    machine.memory.pages += 7
    await bench.undo()
    assert machine.memory.pages == 107


@in_virtual_time
async def test_pages_that_others_took_away_meanwhile_are_not_taken_twice() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.memory.pages = 100
    await bench.apply("back-guest-memory", static(machine))
    machine.memory.pages = 150
    await bench.undo()
    assert machine.memory.pages == 100


@in_virtual_time
async def test_too_few_pages_are_counted_and_given_back() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.memory.pages = 100
    machine.faults.set(lie(), kind="write", target="compact_memory", nth=0)
    could = (machine.memory.free - machine.memory.fragmented) // HUGE
    needed = could + 50
    with pytest.raises(UnsupportedError) as caught:
        await bench.apply("back-guest-memory", {"kind": "static", "bytes": needed * HUGE, "size_kib": 2048})
    assert caught.value.message == (
        f"The guest needs {needed} huge pages of 2048 KiB; the kernel could make {could}. Close programs, or use "
        "hugepages=transparent, which takes what there is."
    )
    assert writes(machine, "compact_memory") != []
    await bench.undo()
    assert machine.memory.pages == 100


@in_virtual_time
async def test_the_host_is_never_starved() -> None:
    """On the real kernel pages were made until the daemon itself no longer ran."""
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.memory.pages = 100
    with pytest.raises(UnsupportedError, match="the host can spare"):
        await bench.apply("back-guest-memory", {"kind": "static", "bytes": 15 << 30, "size_kib": 2048})
    assert writes(machine, "nr_hugepages") == []
    assert machine.memory.pages == 100


@in_virtual_time
async def test_compaction_makes_room_for_the_rest() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    size = machine.memory.free - machine.memory.fragmented + (100 << 20)
    await bench.apply("back-guest-memory", {"kind": "static", "bytes": size, "size_kib": 2048})
    assert await bench.holds()
    assert writes(machine, "compact_memory") == ["1"]


@in_virtual_time
async def test_pages_that_a_guest_still_uses_are_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("back-guest-memory", static(machine))
    machine.memory.pages_used = 1024
    await bench.undo()
    assert "1024 huge pages of 2048 KiB are still in use" in caplog.text
    machine.memory.pages_used = 0
    assert machine.kernel.read("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages") == "0"


@in_virtual_time
@pytest.mark.parametrize("effect", [lie(), refuse(errno.EINVAL)], ids=["lie", "refusal"])
async def test_pages_that_the_kernel_keeps_for_nobody_are_one(effect: Effect) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("back-guest-memory", static(machine))
    machine.faults.set(effect, kind="write", target="nr_hugepages")
    with pytest.raises((RolledBackError, OSError), match=r"1024 huge pages|Invalid argument"):
        await bench.undo_latest()
    await bench.undo()


@in_virtual_time
@pytest.mark.parametrize("size", [1048576, 64])
async def test_sizes_that_cannot_be_had(size: int) -> None:
    bench = await StepBench.of(await igpu_dgpu())
    with pytest.raises(UnsupportedError, match=rf"huge pages of {size} KiB"):
        await bench.apply("back-guest-memory", {"kind": "static", "bytes": 2 << 30, "size_kib": size})


@in_virtual_time
@pytest.mark.parametrize(
    ("before", "away"),
    [
        (("never", "never", "never"), ("madvise", "madvise", "advise")),
        (("madvise", "defer", "deny"), ("madvise", "madvise", "advise")),
        (("always", "always", "always"), ("always", "always", "always")),
        (("madvise", "defer+madvise", "within_size"), ("madvise", "defer+madvise", "within_size")),
    ],
)
async def test_transparent_pages_are_made_possible_where_they_are_not(
    before: tuple[str, ...], away: tuple[str, ...]
) -> None:
    names = ("enabled", "defrag", "shmem_enabled")
    machine = await never_huge()
    machine.memory.transparent = dict(zip(names, before, strict=True))
    bench = await StepBench.of(machine)
    await bench.apply("back-guest-memory", transparent(machine))
    assert tuple(machine.memory.transparent[name] for name in names) == away
    assert await bench.holds()
    await bench.undo()
    assert tuple(machine.memory.transparent[name] for name in names) == before


@in_virtual_time
async def test_a_switch_that_somebody_else_set_meanwhile_stays() -> None:
    machine = await never_huge()
    bench = await StepBench.of(machine)
    await bench.apply("back-guest-memory", transparent(machine))
    machine.memory.transparent["enabled"] = "always"
    await bench.undo()
    assert machine.memory.transparent == {"enabled": "always", "defrag": "never", "shmem_enabled": "never"}
    await bench.apply("back-guest-memory", transparent(machine))
    machine.memory.transparent["enabled"] = "madvise"
    await bench.undo()
    assert machine.memory.transparent == {"enabled": "madvise", "defrag": "never", "shmem_enabled": "never"}


@in_virtual_time
async def test_a_kernel_without_transparent_pages() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.tree.remove(THP)
    with pytest.raises(UnsupportedError, match="no transparent huge pages"):
        await bench.apply("back-guest-memory", transparent(machine))
