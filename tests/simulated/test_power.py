"""Sleep, shutdown and the replacement of the daemon, with a GPU that moves or is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.loopback import LoopbackBus
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

GPU = "0000:01:00.0"
LATER = {"wait": Variant("b", False)}
BLOCK = "sleep:handle-lid-switch gpuhandoff block"
DELAY = "sleep:shutdown gpuhandoff delay"


async def product(directory: Path) -> Product:
    return await Product(await SCENARIOS["single-nvidia"](), directory).start()


def inhibitors(one: Product) -> list[str]:
    return list(one.machine.snapshot()["inhibitors"])


@pytest.mark.parametrize("member", ["PrepareForSleep", "PrepareForShutdown"])
@in_virtual_time
async def test_a_machine_that_is_about_to_go_first_sees_the_job_undone(tmp_path: Path, member: str) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    job = await one.handoff(GPU, **LATER)
    await asyncio.sleep(0.5)
    assert (await one.status(GPU))["state"] == "handing-off"
    assert inhibitors(one) == [BLOCK, DELAY]
    one.machine.logind.prepare(member, going=True)
    await asyncio.sleep(0)
    assert DELAY in inhibitors(one)
    await one.idle()
    await asyncio.sleep(1)
    assert differences(was, one.machine.snapshot()) == []
    ended = next(signal for signal in one.signals if signal.member == "JobRemoved")
    assert ended.body == (job, "cancelled")
    for call in (one.handoff, one.reclaim):
        with pytest.raises(RemoteError, match=r"The machine is (about to sleep|shutting down)"):
            await call(GPU)
    one.machine.logind.prepare(member, going=False)
    await asyncio.sleep(0)
    await one.handoff(GPU)
    assert inhibitors(one) == [BLOCK]
    await one.stop()


@in_virtual_time
async def test_a_guest_that_ends_while_the_machine_shuts_down_is_left_to_the_reboot(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    one.machine.start_guest(GPU)
    await asyncio.sleep(1)
    away = one.machine.snapshot()["units"]
    one.machine.logind.prepare("PrepareForShutdown", going=True)
    one.machine.stop_guest(GPU)
    await asyncio.sleep(100)
    assert (await one.status(GPU))["state"] == "detached"
    assert one.machine.snapshot()["units"] == away
    one.machine.logind.prepare("PrepareForShutdown", going=False)
    await asyncio.sleep(30)
    assert (await one.status(GPU))["state"] == "host"
    await one.stop()


@in_virtual_time
async def test_what_a_logind_had_announced_that_is_gone_holds_no_longer(tmp_path: Path) -> None:
    """Nobody else will take it back."""
    one = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
    logind = one.machine.logind
    logind.prepare("PrepareForShutdown", going=True)
    await asyncio.sleep(1)
    with pytest.raises(RemoteError, match="shutting down"):
        await one.handoff(GPU)
    bus = logind._bus
    assert isinstance(bus, LoopbackBus)
    bus.drop()
    await logind.attach(one.broker.connect())
    await asyncio.sleep(1)
    await one.handoff(GPU)
    await one.reclaim(GPU)
    await one.stop()


@in_virtual_time
async def test_the_inhibitor_of_a_gpu_that_is_away_is_held_while_the_daemon_is_replaced(tmp_path: Path) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    await one.handoff(GPU)
    taken = len([each for each in one.machine.faults.log if each.target.endswith(".Inhibit")])
    assert inhibitors(one) == [BLOCK]
    await one.stop()
    assert inhibitors(one) == [BLOCK]
    await one.start_daemon()
    await asyncio.sleep(1)
    assert inhibitors(one) == [BLOCK]
    assert len([each for each in one.machine.faults.log if each.target.endswith(".Inhibit") and "block" in each.detail]) == 1
    assert taken == 2
    await one.reclaim(GPU)
    await asyncio.sleep(1)
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_without_a_store_the_next_daemon_takes_the_inhibitor_again(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    await one.stop()
    one.machine.descriptors.clear()
    await asyncio.sleep(1)
    assert inhibitors(one) == []
    await one.start_daemon()
    await asyncio.sleep(1)
    assert inhibitors(one) == [BLOCK]
    await one.stop()


@in_virtual_time
async def test_an_inhibitor_that_no_journal_speaks_of_is_let_go(tmp_path: Path) -> None:
    """The daemon was killed when it had told the service manager, which had not listened yet."""
    one = await product(tmp_path)
    await one.handoff(GPU)
    await one.stop()
    (tmp_path / f"{GPU}.journal").unlink()
    assert inhibitors(one) == [BLOCK]
    await one.start_daemon()
    await asyncio.sleep(1)
    assert (inhibitors(one), one.machine.descriptors.kept) == ([], {})
    await one.stop()
