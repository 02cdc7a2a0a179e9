"""The steps that end the desktop and the GPU's services, and start them again."""

from __future__ import annotations

import asyncio

import pytest

from gpuhandoff.errors import InUseError, TimedOutError
from gpuhandoff.host.units import UnitJobError
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import hang, lie, reject
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.process import SimulatedProcess
from gpuhandoff.simulation.scenarios import igpu_dgpu, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.simulation.units import Program, SimulatedUnit
from tests.support.step_cases import plasma, settle, stop_display, stop_services
from tests.support.steps import StepBench

CARD = "/dev/dri/card0"


def now() -> float:
    return asyncio.get_running_loop().time()


def orders(machine: SimulatedMachine, kind: str = "job") -> list[str]:
    """What was asked of the machine: "stop sddm.service"."""
    return [f"{one.detail} {one.target}" for one in machine.faults.log if one.kind == kind]


def compositor(machine: SimulatedMachine) -> SimulatedProcess:
    """Alice's, not the greeter's."""
    return next(one for one in machine.processes.named("kwin_wayland") if one.uid == 1000)


# stop-display


@in_virtual_time
async def test_a_display_manager_that_refuses_is_named_and_left_running() -> None:
    bench = await StepBench.of(await single_nvidia())
    before = bench.machine.snapshot()
    bench.machine.faults.set(lie("failed"), kind="job", target="sddm.service", detail="stop")
    with pytest.raises(UnitJobError, match=r"sddm\.service could not be stopped.*systemctl status sddm\.service"):
        await bench.apply("stop-display", stop_display(bench.machine))
    await bench.undo()
    assert differences(before, bench.machine.snapshot()) == []
    assert orders(bench.machine) == ["stop sddm.service"]


@in_virtual_time
async def test_a_display_manager_that_never_stops_is_waited_for_longer_than_systemd_does() -> None:
    bench = await StepBench.of(await single_nvidia())
    before = bench.machine.snapshot()
    bench.machine.faults.set(hang(), kind="job", target="sddm.service", detail="stop")
    with pytest.raises(TimedOutError, match=r"sddm\.service did not stop within 100 s"):
        await bench.apply("stop-display", stop_display(bench.machine))
    bench.machine.faults.clear()
    await bench.undo()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
async def test_the_display_manager_is_started_once() -> None:
    bench = await StepBench.of(await single_nvidia())
    await bench.apply("stop-display", stop_display(bench.machine))
    await bench.undo_latest()
    await bench.undo_latest()
    assert orders(bench.machine) == ["stop sddm.service", "start sddm.service"]
    calls = [one.target.rpartition(".")[2] for one in bench.machine.faults.log if one.kind == "call"]
    assert calls.index("ResetFailedUnit") < calls.index("StartUnit")


@in_virtual_time
async def test_a_display_manager_that_did_not_run_is_not_started() -> None:
    bench = await StepBench.of(await single_nvidia())
    await bench.host.units.stop("sddm.service")
    await bench.settle()
    before = bench.machine.snapshot()
    await bench.apply("stop-display", stop_display(bench.machine))
    await bench.undo()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
async def test_what_a_user_does_over_ssh_is_neither_ended_nor_waited_for() -> None:
    bench = await StepBench.of(await single_nvidia())
    scope = "/user.slice/user-1000.slice/session-99.scope"
    job = bench.machine.processes.spawn("train", uid=1000, cgroup=scope, opens=["/dev/nvidia0"])
    began = now()
    await bench.apply("stop-display", stop_display(bench.machine))
    assert now() - began < 2
    assert job.pending == set()
    assert bench.machine.processes.with_path("/dev/nvidia0")[-1] is job


@in_virtual_time
async def test_a_compositor_that_its_wrapper_starts_again_is_ended_again() -> None:
    machine = await plasma()
    bench = await StepBench.of(machine)
    first = compositor(machine)

    def again() -> None:
        machine.processes.spawn("kwin_wayland", uid=1000, cgroup=first.cgroup, opens=[CARD])

    first.on_end.append(again)
    await bench.apply("stop-display", stop_display(machine))
    assert machine.processes.with_path(CARD) == []


@in_virtual_time
async def test_a_compositor_that_ignores_sigterm_is_killed() -> None:
    machine = await plasma()
    bench = await StepBench.of(machine)
    compositor(machine).stubborn = True
    await bench.apply("stop-display", stop_display(machine))
    assert machine.processes.with_path(CARD) == []


@in_virtual_time
async def test_a_compositor_that_cannot_be_killed_is_named() -> None:
    machine = await plasma()
    bench = await StepBench.of(machine)
    stuck = compositor(machine)
    stuck.stubborn = stuck.unkillable = True
    with pytest.raises(InUseError, match=rf"kwin_wayland \(pid {stuck.pid}\) has /dev/dri/card0 open"):
        await bench.apply("stop-display", stop_display(machine))


@in_virtual_time
async def test_logind_is_waited_for_and_never_signalled() -> None:
    machine = await single_nvidia()
    bench = await StepBench.of(machine)
    (logind,) = machine.processes.named("systemd-logind")
    arguments = stop_display(machine)
    await bench.host.units.stop("sddm.service")
    await bench.settle()
    machine.processes.open(logind, CARD)
    with pytest.raises(InUseError, match="systemd-logind"):
        await bench.apply("stop-display", arguments)
    asyncio.get_running_loop().call_later(1, machine.processes.close, logind)
    await bench.apply("stop-display", arguments)
    assert logind.pending == set()


@in_virtual_time
async def test_the_sound_server_is_left_alone_with_the_cards_control_node() -> None:
    machine = await single_nvidia()
    machine.sessions.user_stop_delay = 3600.0
    bench = await StepBench.of(machine)
    (server,) = machine.processes.named("wireplumber")
    arguments = settle(machine)
    assert "/dev/snd/controlC1" in arguments["nodes"]
    began = now()
    await bench.apply("stop-display", {**stop_display(machine), "nodes": arguments["nodes"]})
    await bench.apply("stop-gpu-services", stop_services(machine))
    await bench.apply("settle-holders", arguments)
    assert await bench.holds()
    assert now() - began < 2
    await bench.undo()
    assert server.pending == set()


@in_virtual_time
async def test_a_sound_server_that_plays_on_the_card_is_in_the_way() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    machine.processes.spawn("pipewire", uid=1000, opens=["/dev/snd/controlC1", "/dev/snd/pcmC1D3p"])
    with pytest.raises(InUseError, match="pipewire"):
        await bench.apply("settle-holders", settle(machine))


@in_virtual_time
@pytest.mark.parametrize("member", ["ListSessions", "TerminateSession"])
async def test_the_display_manager_is_started_without_logind_too(member: str) -> None:
    bench = await StepBench.of(await single_nvidia())
    before = bench.machine.snapshot()
    await bench.apply("stop-display", stop_display(bench.machine))
    bench.machine.faults.set(reject(RemoteError("x.Gone", "gone")), target=member, nth=0)
    await bench.undo()
    await bench.settle()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
async def test_undo_does_not_end_a_desktop_that_was_started_meanwhile() -> None:
    machine = await single_nvidia()
    bench = await StepBench.of(machine)
    await bench.apply("stop-display", stop_display(machine))
    other = machine.processes.spawn(
        "sway", uid=1000, cgroup="/user.slice/user-1000.slice/user@1000.service/app.slice/sway.service", opens=[CARD]
    )
    await bench.undo()
    assert machine.processes.get(other.pid) is other
    assert other.pending == set()


# stop-gpu-services


@in_virtual_time
async def test_only_services_that_ran_are_started_in_reverse_after_their_failures_are_forgotten() -> None:
    machine = await single_nvidia()
    bench = await StepBench.of(machine)
    ollama = SimulatedUnit("ollama.service", "/system.slice/ollama.service", (Program("ollama"),))
    machine.units.add(ollama, active=True)
    machine.units.add(SimulatedUnit("nvidia-powerd.service", "/system.slice/nvidia-powerd.service"))
    await bench.apply("stop-gpu-services", {"units": [*stop_services(machine)["units"], "ollama.service"]})
    ollama.active_state = "failed"
    await bench.undo()
    assert [one for one in orders(machine) if one.startswith("start")] == [
        "start ollama.service",
        "start nvidia-persistenced.service",
    ]
    calls = [f"{one.target.rpartition('.')[2]} {one.detail}" for one in machine.faults.log if one.kind == "call"]
    assert calls.index("ResetFailedUnit ollama.service") < calls.index("StartUnit ollama.service replace")


@in_virtual_time
async def test_a_service_that_refuses_is_named() -> None:
    bench = await StepBench.of(await single_nvidia())
    bench.machine.faults.set(lie("failed"), kind="job", target="nvidia-persistenced.service")
    with pytest.raises(UnitJobError, match=r"nvidia-persistenced\.service could not be stopped"):
        await bench.apply("stop-gpu-services", stop_services(bench.machine))
