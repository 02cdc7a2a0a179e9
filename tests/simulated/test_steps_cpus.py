"""The steps that keep the host to its CPUs, and its interrupts with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.errors import RolledBackError, UnsupportedError
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import lie, reject
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import igpu_dgpu
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.simulation.units import SimulatedUnit, Units
from gpuhandoff.steps.processors import mask, parse_mask
from tests.support.step_cases import UNITS, confine
from tests.support.steps import StepBench


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
