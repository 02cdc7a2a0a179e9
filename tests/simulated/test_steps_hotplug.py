"""CPUs that go offline or come online while the host is confined (SMT is a switch): the host gets all that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhandoff.errors import RolledBackError
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.cpus import format_cpus, parse_cpus
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import before, refuse, reject
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product
from tests.support.step_cases import UNITS, confine
from tests.support.steps import StepBench


def switch(machine: SimulatedMachine, online: str) -> None:
    """Switch CPUs on and off."""
    machine.processors.switch(parse_cpus(online))


def slices(machine: SimulatedMachine) -> set[tuple[str, str]]:
    """What the confined units may use, and do."""
    units = [machine.units.units[name] for name in UNITS]
    return {(format_cpus(one.allowed_cpus), format_cpus(machine.units.effective_cpus(one))) for one in units}


@in_virtual_time
@pytest.mark.parametrize("left", ["0-3", "0-1", "0,4-7", "0"])
async def test_the_host_gets_all_that_are_online(left: str) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    start = machine.snapshot()
    await bench.apply("confine-host", confine(machine))
    switch(machine, left)
    assert await bench.holds()
    await bench.undo()
    assert slices(machine) == {("", left)}
    switch(machine, "0-7")
    assert slices(machine) == {("", "0-7")}, "what has come back stays shut to the host"
    now = machine.snapshot()
    offline = [str(cpu) for cpu in range(8) if cpu not in parse_cpus(left)]
    assert {cpu for cpu, governor in now["governors"].items() if governor != "schedutil"} <= set(offline)
    assert differences(start, {**now, "governors": start["governors"], "interrupts": start["interrupts"]}) == []


@in_virtual_time
async def test_the_host_gets_what_has_come_online() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    switch(machine, "0-3")
    await bench.apply("confine-host", {**confine(machine), "guest_cpus": "2-3"})
    switch(machine, "0-7")
    await bench.undo()
    assert slices(machine) == {("", "0-7")}


@in_virtual_time
async def test_what_was_confined_before_is_confined_to_what_is_left_of_it() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    await bench.host.units.set_runtime("user.slice", {"AllowedCPUs": Variant("ay", b"\x3c")})
    await bench.apply("confine-host", confine(machine))
    switch(machine, "0-3")
    await bench.undo()
    assert slices(machine) == {("", "0-3"), ("2-5", "2-3")}
    switch(machine, "0-7")
    assert slices(machine) == {("", "0-7"), ("2-5", "2-5")}


@in_virtual_time
async def test_a_cpu_that_goes_between_plan_and_step_hinders_nothing() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    arguments = confine(machine)
    switch(machine, "0,2-6")
    await bench.apply("confine-host", arguments)
    assert slices(machine) == {("0-1", "0")}
    await bench.undo()
    assert slices(machine) == {("", "0,2-6")}


@in_virtual_time
async def test_a_cpu_that_goes_while_the_step_is_at_it_hinders_nothing() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    governor = "cpu5/cpufreq/scaling_governor"
    machine.faults.set(before(lambda: switch(machine, "0,2-4")), kind="write", target=governor)
    await bench.apply("confine-host", confine(machine))
    assert slices(machine) == {("0-1", "0")}
    await bench.undo()
    assert slices(machine) == {("", "0,2-4")}


@in_virtual_time
async def test_a_governor_that_is_refused_to_a_cpu_that_is_there_is_told() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.faults.set(refuse(16), kind="write", target="cpu5/cpufreq/scaling_governor")
    with pytest.raises(OSError, match="busy"):
        await bench.apply("confine-host", confine(machine))


@in_virtual_time
async def test_one_unit_that_cannot_be_released_hinders_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    start = machine.snapshot()
    await bench.apply("confine-host", confine(machine))
    for unit in ("init.scope", "user.slice"):
        machine.faults.set(reject(RemoteError("x.No", "not now")), target="SetUnitProperties", detail=unit, nth=0)
    with pytest.raises(RolledBackError, match=r"did not let init\.scope have the CPUs"):
        await bench.undo_latest()
    assert "user.slice" in caplog.text
    now = machine.snapshot()
    assert now["units"]["system.slice"] == start["units"]["system.slice"]
    for kind in ("interrupts", "workqueues", "governors"):
        assert now[kind] == start[kind]
    machine.faults.clear()
    await bench.undo()
    assert differences(start, machine.snapshot()) == []


@in_virtual_time
async def test_the_card_comes_back_after_smt_was_switched_off(tmp_path: Path) -> None:
    one = await Product(await igpu_dgpu(), tmp_path).start()
    await one.handoff(GPU, cpus=Variant("s", "0-1"))
    switch(one.machine, "0-3")
    await one.reclaim(GPU)
    assert slices(one.machine) == {("", "0-3")}
    assert one.journals() == []
    await one.stop()


@in_virtual_time
async def test_a_cpu_is_switched_as_the_kernel_does_it() -> None:
    machine = await igpu_dgpu()
    kernel = machine.kernel
    machine.processors.interrupts[24].cpus = frozenset({7})
    await kernel.write("/sys/devices/system/cpu/cpu7/online", "0")
    assert kernel.read("/sys/devices/system/cpu/online") == "0-6"
    assert kernel.read("/sys/devices/system/cpu/present") == "0-7"
    assert kernel.read("/proc/irq/24/smp_affinity_list") == "0-6"  # wherever there is a CPU, when its own has gone
    governor = "/sys/devices/system/cpu/cpu7/cpufreq/scaling_governor"
    with pytest.raises(OSError, match="busy"):
        kernel.read(governor)
    await kernel.write("/sys/devices/system/cpu/cpu7/online", "1")
    assert kernel.read("/sys/devices/system/cpu/online") == "0-7"
    assert kernel.read(governor) == "schedutil"
    assert not kernel.exists("/sys/devices/system/cpu/cpu0/online")
