"""The step that makes the host quiet: units are frozen, processes stopped."""

from __future__ import annotations

import pytest

from gpuhandoff.errors import RolledBackError
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import reject
from gpuhandoff.simulation.scenarios import igpu_dgpu
from gpuhandoff.simulation.snapshot import differences
from tests.support.step_cases import quiet
from tests.support.steps import StepBench

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


@in_virtual_time
async def test_a_systemd_that_does_not_say_whether_a_unit_is_frozen_leaves_none_frozen() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.apply("quiet-host", quiet(machine))
    late = RemoteError("org.freedesktop.DBus.Error.NoReply", "Late.")
    machine.faults.set(reject(late), when=lambda operation: "FreezerState" in operation.detail, nth=0)
    with pytest.raises(RolledBackError, match=r"cron\.service cannot be thawed: Late"):
        await bench.undo()
    machine.faults.clear()
    await bench.undo()
    assert not machine.units.units["cron.service"].frozen
