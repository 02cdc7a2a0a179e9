"""A GPU that is stuck: it says why, only it refuses work, and it goes on by itself when the cause is gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import before as just_before
from gpuhandoff.simulation.faults import hang, late, refuse, reject
from gpuhandoff.simulation.process import SimulatedProcess
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.transaction.journal import Journal
from tests.support.product import Product

GPU = "0000:01:00.0"
OTHER = "0000:02:00.0"


async def product(directory: Path, scenario: str = "igpu-dgpu") -> Product:
    return await Product(await SCENARIOS[scenario](), directory).start()


def hold_sound(one: Product) -> list[SimulatedProcess]:
    """Have a program open the card's sound device between the last look and the unbind (kernel.md fact 6)."""
    found: list[SimulatedProcess] = []
    one.machine.faults.set(
        just_before(lambda: found.append(one.machine.processes.spawn("arecord", opens=["/dev/snd/controlC1"]))),
        target="/snd_hda_intel/unbind",
    )
    return found


async def stuck(one: Product) -> str:
    with pytest.raises(RemoteError) as caught:
        await one.handoff(GPU)
    assert caught.value.name == "org.gpuhandoff.Error.Stuck"
    return caught.value.message


@in_virtual_time
async def test_a_hanging_unbind_names_who_holds_what_and_goes_on_when_it_is_closed(tmp_path: Path) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    holders = hold_sound(one)
    message = await stuck(one)
    for words in ("stuck at unload-driver", "snd_card_free", "state D", f"arecord (pid {holders[0].pid})", "close that"):
        assert words in message
    status = await one.status(GPU)
    assert (status["state"], status["reason"]) == ("stuck", message)
    with pytest.raises(RemoteError, match=r"takes no further work: 0000:01:00\.0 is stuck at unload-driver"):
        await one.handoff(GPU)
    one.machine.processes.end(holders[0].pid)
    await asyncio.sleep(30)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_reclaiming_what_still_hangs_touches_nothing(tmp_path: Path) -> None:
    one = await product(tmp_path)
    holders = hold_sound(one)
    await stuck(one)
    one.machine.faults.clear()
    with pytest.raises(RemoteError, match="snd_card_free") as caught:
        await one.reclaim(GPU)
    assert caught.value.name == "org.gpuhandoff.Error.Stuck"
    touched = [each for each in one.machine.faults.log if each.kind in {"read", "write", "load-module", "remove-module"}]
    assert touched == []
    one.machine.processes.end(holders[0].pid)
    await asyncio.sleep(30)
    assert (await one.status(GPU))["state"] == "host"
    await one.stop()


@in_virtual_time
async def test_the_next_daemon_waits_for_what_the_last_one_left_hanging(tmp_path: Path) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    holders = hold_sound(one)
    await stuck(one)
    await one.stop()
    await one.start_daemon()
    status = await one.status(GPU)
    assert status["state"] == "stuck"
    assert f"arecord (pid {holders[0].pid})" in status["reason"]
    one.machine.processes.end(holders[0].pid)
    await asyncio.sleep(30)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_only_the_stuck_gpu_refuses_work(tmp_path: Path) -> None:
    one = await product(tmp_path, "twin")
    was = one.machine.snapshot()
    holders = hold_sound(one)
    await stuck(one)
    await one.handoff(OTHER)
    assert (await one.status(OTHER))["state"] == "detached"
    await one.reclaim(OTHER)
    assert (await one.status(GPU))["state"] == "stuck"
    one.machine.processes.end(holders[0].pid)
    await asyncio.sleep(30)
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_driver_that_is_loaded_waits_for_a_function_that_hangs(tmp_path: Path) -> None:
    """What makes vfio-pci be loaded before anything can hang: seen on 6.12.107, where modprobe never returned."""
    one = await product(tmp_path)
    hold_sound(one)
    await stuck(one)
    assert "vfio_pci" in one.machine.modules.loaded
    await one.machine.modules.remove("vfio_pci")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await one.machine.modules.load("vfio_pci")
    for task in tuple(one.machine.operations):
        task.cancel()
    await one.stop()


@in_virtual_time
async def test_what_the_kernel_refuses_is_tried_again_when_somebody_asks(tmp_path: Path) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    await one.handoff(GPU)
    one.machine.faults.set(refuse(errno.EIO), kind="load-module", target="nvidia", nth=0)
    with pytest.raises(RemoteError, match="EIO") as caught:
        await one.reclaim(GPU)
    assert caught.value.name == "org.gpuhandoff.Error.Stuck"
    assert "stuck at unload-driver" in caught.value.message
    assert "reclaim the GPU again" in caught.value.message
    one.machine.faults.clear()
    await asyncio.sleep(1000)
    assert (await one.status(GPU))["state"] == "stuck"
    await one.reclaim(GPU)
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_status_answers_while_the_kernel_hangs(tmp_path: Path) -> None:
    one = await product(tmp_path)
    holders = hold_sound(one)
    job = await one.call("Handoff", "sa{sv}", GPU, {"wait": Variant("b", False)})
    await asyncio.sleep(10)
    loop = asyncio.get_running_loop()
    began = loop.time()
    status = await one.status(GPU)
    assert loop.time() - began < 0.001
    assert (status["state"], status["step"], status["job"]) == ("handing-off", "unload-driver", job)
    one.machine.processes.end(holders[0].pid)
    await one.idle()
    assert (await one.status(GPU))["state"] == "detached"
    await one.stop()


@in_virtual_time
async def test_an_operation_that_comes_back_late_but_in_time_is_no_trouble(tmp_path: Path) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    over = asyncio.Event()
    one.machine.faults.set(hang(over), target="/snd_hda_intel/unbind")
    asyncio.get_running_loop().call_later(25, over.set)
    await one.handoff(GPU)
    await one.reclaim(GPU)
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_what_hangs_under_nobodys_hands_goes_on_when_the_kernel_has_finished(tmp_path: Path) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    over = asyncio.Event()
    one.machine.faults.set(hang(over), target="/snd_hda_intel/unbind")
    message = await stuck(one)
    assert "gpuhandoff goes on by itself when the kernel has finished" in message
    await asyncio.sleep(1000)
    assert (await one.status(GPU))["state"] == "stuck"
    over.set()
    await asyncio.sleep(30)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_what_ended_before_anybody_could_look_goes_on_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel finishes while the job that got stuck still looks at the machine."""
    one = await product(tmp_path, "single-nvidia")
    was = one.machine.snapshot()
    over, append = asyncio.Event(), Journal.append
    one.machine.faults.set(hang(over), target="/snd_hda_intel/unbind")
    one.machine.faults.set(late(0.5), target="ListSessions", nth=0)

    def appended(self: Journal, **line: object) -> None:
        append(self, **line)
        if "stuck" in line:
            asyncio.get_running_loop().call_later(0.2, over.set)

    monkeypatch.setattr(Journal, "append", appended)
    assert "gpuhandoff goes on by itself" in await stuck(one)
    assert over.is_set()
    await asyncio.sleep(60)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_what_still_hangs_of_a_step_that_changes_nothing_is_in_nobodys_way(tmp_path: Path) -> None:
    """`sync` on a server that is gone: nothing has to wait for it on the way back."""
    one = await product(tmp_path)
    was = one.machine.snapshot()
    assert one.daemon is not None
    one.machine.faults.set(hang(asyncio.Event()), kind="sync", nth=0)
    more = one.daemon.fleet.world.memory_available + (1 << 30)
    with contextlib.suppress(RemoteError):  # it may be refused for want of memory; the way back is what matters
        await one.call("Handoff", "sa{sv}", GPU, {"memory": Variant("t", more)})
    if (await one.status(GPU))["state"] != "host":
        await one.reclaim(GPU)
    assert any(done.kind == "sync" for done in one.machine.faults.log)
    assert (await one.status(GPU))["state"] == "host"
    left = [
        line for line in differences(was, one.machine.snapshot()) if "sync" not in line and "gpuhandoff-call" not in line
    ]
    assert left == []
    await one.stop()


@in_virtual_time
async def test_a_way_back_that_keeps_failing_is_not_tried_without_a_pause(tmp_path: Path) -> None:
    one = await product(tmp_path)
    was = one.machine.snapshot()
    holders = hold_sound(one)
    await stuck(one)
    one.signals.clear()
    late = RemoteError("org.freedesktop.DBus.Error.NoReply", "Late.")
    one.machine.faults.set(reject(late), target="ListSessions", nth=0)
    one.machine.processes.end(holders[0].pid)
    await asyncio.sleep(600)
    tried = [signal for signal in one.signals if signal.member == "JobRemoved"]
    assert 2 <= len(tried) <= 10
    one.machine.faults.clear()
    await asyncio.sleep(600)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(was, one.machine.snapshot()) == []
    await one.stop()
