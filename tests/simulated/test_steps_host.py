"""The steps that make room for a guest: CPUs, quiet, memory."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.errors import RolledBackError, UnsupportedError
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Effect, hang, lie, refuse, reject
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.memory import HUGE
from gpuhandoff.simulation.scenarios import igpu_dgpu
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.simulation.units import SimulatedUnit, Units
from gpuhandoff.steps.processors import mask, parse_mask
from tests.support.step_cases import UNITS, confine, never_huge, quiet, static, transparent
from tests.support.steps import StepBench

THP = "/sys/kernel/mm/transparent_hugepage"


def writes(machine: SimulatedMachine, target: str) -> list[str]:
    """What was written to attributes of this name, in order."""
    return [one.detail for one in machine.faults.log if one.kind == "write" and one.target.endswith(target)]


def slices(machine: SimulatedMachine) -> dict[str, tuple[str, str]]:
    """AllowedCPUs and EffectiveCPUs of the confined units and of guests."""
    units = [machine.units.units[name] for name in (*UNITS, "machine.slice")]
    return {one.name: (format_cpus(one.allowed_cpus), format_cpus(machine.units.effective_cpus(one))) for one in units}


# confine-host


@in_virtual_time
async def test_the_host_keeps_to_its_cpus_and_guests_do_not() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("confine-host", confine(machine))
    assert slices(machine) == {**dict.fromkeys(UNITS, ("0-1", "0-1")), "machine.slice": ("", "0-7")}
    away = machine.snapshot()
    assert {number: away["interrupts"][number] for number in ("16", "24", "25", "26")} == {
        "16": "0-1",
        "24": "0-1",
        "25": "1",  # nvme's own, which the kernel does not let be moved
        "26": "0-1",
    }
    assert away["default_affinity"] == "ff"
    assert away["workqueues"] == "3"
    assert [away["governors"][str(cpu)] for cpu in range(8)] == ["schedutil"] * 2 + ["performance"] * 6


@in_virtual_time
async def test_what_was_confined_before_is_confined_again() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.host.units.set_runtime("user.slice", {"AllowedCPUs": Variant("ay", b"\x3c")})
    before = machine.snapshot()
    await bench.apply("confine-host", confine(machine))
    await bench.undo()
    assert differences(before, machine.snapshot()) == []
    assert slices(machine)["user.slice"] == ("2-5", "2-5")


@in_virtual_time
async def test_what_others_set_meanwhile_stays(caplog: pytest.LogCaptureFixture) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("confine-host", confine(machine))
    await bench.host.units.set_runtime("user.slice", {"AllowedCPUs": Variant("ay", b"\x30")})
    machine.processors.governors[5] = "powersave"
    machine.processors.workqueue = frozenset({7})
    await bench.undo()
    assert slices(machine) == {
        "init.scope": ("", "0-7"),
        "system.slice": ("", "0-7"),
        "user.slice": ("4-5", "4-5"),
        "machine.slice": ("", "0-7"),
    }
    assert "somebody else has confined user.slice to the CPUs 4-5" in caplog.text
    assert machine.processors.governors[5] == "powersave"
    assert machine.processors.governors[4] == "schedutil"
    assert machine.processors.workqueue == {7}


@in_virtual_time
async def test_systemd_43846_an_empty_set_does_not_widen_what_is_in_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a real machine: no cpuset until one is set, and never a wider one by taking the limit away."""
    live: dict[str, frozenset[int]] = {}

    def confine_live(self: Units, unit: SimulatedUnit, cpus: frozenset[int]) -> None:
        unit.allowed_cpus = cpus
        for name in UNITS:
            live.setdefault(name, self.machine.processors.online)
        if cpus:
            live[unit.name] = cpus

    monkeypatch.setattr(Units, "confine", confine_live)
    monkeypatch.setattr(Units, "effective_cpus", lambda _self, unit: live.get(unit.name, frozenset()))
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    begun = await bench.apply("confine-host", confine(machine))
    assert begun.saved["units"]["user.slice"] == {"AllowedCPUs": "", "EffectiveCPUs": ""}
    await bench.undo_latest()
    await bench.undo()
    assert {name: one for name, one in slices(machine).items() if name in UNITS} == dict.fromkeys(UNITS, ("", "0-7"))


@in_virtual_time
async def test_cpus_that_are_not_given_are_noticed() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    before = machine.snapshot()
    machine.faults.set(lie(), target="SetUnitProperties", detail="system.slice")
    with pytest.raises(RolledBackError, match=r"system\.slice was told to use the CPUs 0-1 and uses 0-7"):
        await bench.apply("confine-host", confine(machine))
    await bench.undo()
    assert differences(before, machine.snapshot()) == []


@in_virtual_time
async def test_a_systemd_that_refuses_is_quoted() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.faults.set(reject(RemoteError("x.Refused", "no such controller")), target="SetUnitProperties")
    with pytest.raises(RolledBackError, match=r"did not let init\.scope have the CPUs 0-1: no such controller"):
        await bench.apply("confine-host", confine(machine))
    with pytest.raises(UnsupportedError, match=r"which CPUs missing\.slice may use"):
        await bench.apply("confine-host", {**confine(machine), "units": ["missing.slice"]})


@in_virtual_time
async def test_a_systemd_that_does_not_answer_means_that_nothing_is_known_to_hold(caplog: pytest.LogCaptureFixture) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("confine-host", confine(machine))
    machine.faults.set(reject(RemoteError("x.Gone", "gone")), target="Properties.Get", nth=0)
    assert not await bench.holds()
    assert "does not tell which CPUs" in caplog.text


@in_virtual_time
async def test_only_what_is_asked_for_is_moved() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    arguments = {**confine(machine), "interrupts": False, "workqueues": False, "governor": ""}
    await bench.apply("confine-host", arguments)
    assert [one for one in machine.faults.log if one.kind == "write"] == []


@given(st.frozensets(st.integers(0, 300), min_size=1))
def test_masks_come_in_groups_of_32_bits(cpus: frozenset[int]) -> None:
    text = mask(cpus)
    assert parse_mask(text) == cpus
    assert {len(group) for group in text.split(",")} == {8}


# quiet-host


@in_virtual_time
async def test_what_pauses_already_is_left_to_whoever_paused_it() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.host.units.freeze("cron.service")
    machine.processes.named("firefox")[0].state = "T"
    before = machine.snapshot()
    begun = await bench.apply("quiet-host", quiet(machine))
    assert begun.saved == {"units": [], "processes": []}
    await bench.undo()
    assert differences(before, machine.snapshot()) == []


@in_virtual_time
async def test_a_process_with_another_start_time_is_another_process() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    arguments = quiet(machine)
    arguments["processes"][0]["start_time"] += 1
    await bench.apply("quiet-host", arguments)
    assert machine.processes.named("firefox")[0].state == "S"


@in_virtual_time
@pytest.mark.parametrize("name", ["systemd-logind", "dbus-daemon", "wireplumber", "libvirtd"])
async def test_what_the_handoff_needs_is_never_stopped(name: str) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    process = machine.processes.spawn(name)
    arguments = {"units": [], "processes": [{"pid": process.pid, "start_time": process.start_time, "name": name}]}
    await bench.apply("quiet-host", arguments)
    assert process.state == "S"


@in_virtual_time
async def test_what_ended_while_it_was_stopped_is_not_continued() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("quiet-host", quiet(machine))
    machine.processes.end(machine.processes.named("firefox")[0].pid)
    assert await bench.holds()
    await bench.undo()


@in_virtual_time
@pytest.mark.parametrize(("member", "verb"), [("FreezeUnit", "frozen"), ("ThawUnit", "thawed")])
async def test_a_unit_that_is_not_frozen_or_thawed_is_named(member: str, verb: str) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.faults.set(reject(RemoteError("x.Failed", "cgroup busy")), target=member)

    async def there_and_back() -> None:
        await bench.apply("quiet-host", quiet(machine))
        await bench.undo_latest()

    with pytest.raises(RolledBackError, match=rf"cron\.service cannot be {verb}: cgroup busy"):
        await there_and_back()
    await bench.undo()
    assert machine.snapshot()["frozen"] == []


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
