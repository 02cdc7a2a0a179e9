"""What a step is told and is not true, or only comes late: it looks itself."""

from __future__ import annotations

import errno

import pytest

from gpuhandoff.errors import RolledBackError
from gpuhandoff.messages import SERVICE_UNKNOWN, RemoteError, Reply
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Effect, lie, refuse, reject
from gpuhandoff.simulation.scenarios import igpu_dgpu, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.steps.load_vfio import FAMILY
from tests.support.step_cases import CASES, confine, stop_display, stop_services
from tests.support.steps import StepBench


@in_virtual_time
async def test_a_display_manager_that_runs_on_keeps_its_sessions() -> None:
    bench = await StepBench.of(await single_nvidia())
    before = bench.machine.snapshot()
    bench.machine.faults.set(lie("done"), kind="job", target="sddm.service")
    with pytest.raises(RolledBackError, match=r"sddm\.service runs on"):
        await bench.apply("stop-display", stop_display(bench.machine))
    await bench.undo()
    await bench.settle()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
@pytest.mark.parametrize(
    ("step", "unit"), [("stop-display", "sddm.service"), ("stop-gpu-services", "nvidia-persistenced.service")]
)
async def test_a_unit_that_does_not_come_back_is_named(step: str, unit: str) -> None:
    bench = await StepBench.of(await single_nvidia())
    before = bench.machine.snapshot()
    await bench.apply(step, (stop_display if step == "stop-display" else stop_services)(bench.machine))
    bench.machine.faults.set(lie("done"), kind="job", target=unit, detail="start")
    with pytest.raises(RolledBackError, match=f"{unit} does not run"):
        await bench.undo_latest()
    await bench.undo()
    await bench.settle()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
@pytest.mark.parametrize("nth", range(1, 7))
async def test_cpus_that_are_not_given_back(nth: int) -> None:
    bench = await StepBench.of(await igpu_dgpu())
    before = bench.machine.snapshot()
    await bench.apply("confine-host", confine(bench.machine))
    bench.machine.faults.set(lie(Reply()), target="SetUnitProperties", nth=nth)
    with pytest.raises(RolledBackError, match=r"init\.scope|system\.slice|user\.slice"):
        await bench.undo_latest()
    await bench.undo()
    assert differences(before, bench.machine.snapshot()) == []


@in_virtual_time
async def test_a_service_manager_that_takes_its_time_has_not_failed() -> None:
    bench = await StepBench.of(await igpu_dgpu())

    async def late(perform: object) -> object:
        await bench.machine.waits.takes(6)
        return await perform()  # type: ignore[operator]

    bench.machine.faults.set(late, kind="call", detail="EffectiveCPUs", nth=4)
    await bench.apply("confine-host", confine(bench.machine))
    assert await bench.holds()


@in_virtual_time
async def test_an_unbind_that_is_refused_is_told_as_the_kernel_said_it() -> None:
    bench = await StepBench.of(await single_nvidia())
    case = CASES["bind-vfio, NVIDIA"]
    for name, arguments in case.chain:
        await bench.apply(name, arguments(bench.machine))
    bench.machine.faults.set(refuse(errno.ENODEV), target="vfio-pci/unbind")
    with pytest.raises(RolledBackError, match=r"stays bound to vfio-pci.*No such device"):
        await bench.undo_latest()


@in_virtual_time
@pytest.mark.parametrize("effect", [refuse(errno.EAGAIN), refuse(errno.EPERM), lie()], ids=["EAGAIN", "EPERM", "lie"])
@pytest.mark.parametrize("nth", [1, 0], ids=["once", "always"])
async def test_vfio_modules_go_at_the_second_try_or_stay(effect: Effect, nth: int) -> None:
    bench = await StepBench.of(await single_nvidia())
    await bench.apply("load-vfio", {})
    bench.machine.faults.set(effect, kind="remove-module", target="vfio_pci", nth=nth)
    await bench.undo_latest()
    left = [name for name in FAMILY if name in bench.machine.modules.loaded]
    assert bool(left) is (nth == 0)


@in_virtual_time
async def test_a_bus_name_that_vanishes_does_not_say_that_nothing_runs() -> None:
    bench = await StepBench.of(await igpu_dgpu())
    gone = reject(RemoteError(SERVICE_UNKNOWN, "gone"))
    bench.machine.faults.set(gone, kind="call", target="GetUnit", nth=1)
    bench.machine.faults.set(gone, kind="call", target="ListSessions", nth=1)
    assert await bench.host.units.unit("sddm.service") is None
    assert await bench.host.logins.sessions() == ()
    assert await bench.host.units.unit("sddm.service") is not None
    assert await bench.host.logins.sessions()
    bench.machine.faults.set(gone, kind="call", target="GetUnit")
    bench.machine.faults.set(gone, kind="call", target="ListSessions")
    with pytest.raises(RemoteError):
        await bench.host.units.unit("sddm.service")
    with pytest.raises(RemoteError):
        await bench.host.logins.sessions()
