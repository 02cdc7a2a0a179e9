"""The seam for misbehaviour, the oracle and the clock."""

import asyncio
import errno
import time

import pytest

from gpuhandoff.host.door import OverdueError
from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.faults import after, before, fail_afterwards, hang, lie, refuse, reject
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import GPU, SCENARIOS, igpu_dgpu
from gpuhandoff.simulation.snapshot import differences

OVERRIDE = f"/sys/bus/pci/devices/{GPU}/driver_override"


@in_virtual_time
async def test_an_operation_fails_the_nth_time() -> None:
    machine = await igpu_dgpu()
    machine.faults.clear()
    machine.faults.set(refuse(errno.EIO), kind="write", target="driver_override", nth=2)
    await machine.kernel.write(OVERRIDE, "a")
    with pytest.raises(OSError, match="Input/output"):
        await machine.kernel.write(OVERRIDE, "b")
    await machine.kernel.write(OVERRIDE, "c")
    assert machine.kernel.read(OVERRIDE) == "c"
    assert [operation.detail for operation in machine.faults.log] == ["a", "b", "c"]


@in_virtual_time
async def test_an_operation_lies_or_does_it_and_reports_failure() -> None:
    machine = await igpu_dgpu()
    machine.faults.set(lie(), target="driver_override", nth=1)
    machine.faults.set(fail_afterwards(errno.EIO), target="driver_override", nth=2)
    await machine.kernel.write(OVERRIDE, "a")
    assert machine.kernel.read(OVERRIDE) == "(null)"
    with pytest.raises(OSError, match="Input/output"):
        await machine.kernel.write(OVERRIDE, "b")
    assert machine.kernel.read(OVERRIDE) == "b"


@in_virtual_time
async def test_an_operation_hangs_until_an_event() -> None:
    machine = await igpu_dgpu()
    released = asyncio.Event()
    machine.faults.set(hang(released), target="driver_override")
    with pytest.raises(OverdueError):
        await machine.kernel.write(OVERRIDE, "a", deadline=1)
    assert machine.snapshot()["pending"] == [f"write {OVERRIDE} a"]
    released.set()
    await asyncio.sleep(0.1)
    assert machine.kernel.read(OVERRIDE) == "a"


@in_virtual_time
async def test_something_happens_around_an_operation() -> None:
    machine = await igpu_dgpu()
    seen: list[str] = []
    machine.faults.set(before(lambda: seen.append(machine.kernel.read(OVERRIDE))), target="driver_override")
    machine.faults.set(after(lambda: seen.append(machine.kernel.read(OVERRIDE))), target="driver_override", nth=2)
    await machine.kernel.write(OVERRIDE, "a")
    await machine.kernel.write(OVERRIDE, "b")
    assert seen == ["(null)", "b"]


@in_virtual_time
async def test_jobs_and_methods_fail_too() -> None:
    machine = await igpu_dgpu()
    broker = LoopbackBroker()
    await machine.serve(broker)
    host = simulated_host(machine, broker.connect())
    machine.faults.set(reject(RemoteError("org.example.No", "no")), kind="call", target="Manager.FreezeUnit")
    machine.faults.set(refuse(errno.EIO), kind="job", target="cron.service", detail="stop")
    with pytest.raises(RemoteError, match="no"):
        await host.units.freeze("cron.service")
    with pytest.raises(Exception, match="failed"):
        await host.units.stop("cron.service")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_boots_and_stays_as_it_is(name: str) -> None:
    async def main() -> None:
        machine = await SCENARIOS[name]()
        before_waiting = machine.snapshot()
        await asyncio.sleep(3600)
        assert differences(before_waiting, machine.snapshot()) == []

    run(main())


@in_virtual_time
async def test_the_oracle_says_what_differs() -> None:
    machine = await igpu_dgpu()
    old = machine.snapshot()
    await machine.kernel.write(OVERRIDE, "vfio-pci")
    machine.processes.spawn("newcomer")
    assert differences(old, machine.snapshot()) == [
        f"/functions/{GPU}/override: '' -> 'vfio-pci'",
        "/processes: + newcomer uid=0 S",
    ]


def test_virtual_time_jumps() -> None:
    started = time.monotonic()
    run(asyncio.sleep(86400))
    assert time.monotonic() - started < 5


def test_waiting_for_nothing_is_an_error_and_no_hang() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never happen"):
        run(forever())


@in_virtual_time
async def test_a_thread_holds_the_clock() -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(1):
        await loop.run_in_executor(None, time.sleep, 0.05)
