"""Daemons that are killed, and machines whose power is cut: what stays, what goes, what goes on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuhandoff.messages import NO_REPLY, RemoteError
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Hang, after, before, fail_afterwards, partly, refuse
from gpuhandoff.simulation.lives import KilledError, Life
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.transaction.journal import Journal
from tests.support.product import Product

PROBE = "drivers_probe"


@in_virtual_time
async def test_a_life_stops_where_it_is_and_cleans_nothing_up() -> None:
    seen: list[str] = []

    async def live() -> None:
        try:
            seen.append("began")
            await asyncio.sleep(1)
            seen.append("went on")
        except BaseException:  # noqa: BLE001
            seen.append("rolled back")

    life, loop = Life(), asyncio.get_running_loop()
    with life.lived():
        loop.create_task(live())
        loop.call_later(2, seen.append, "timer")
    await asyncio.sleep(0.5)
    loop.end(life)  # type: ignore[attr-defined]
    await asyncio.sleep(5)
    assert seen == ["began"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    life.bury()


@in_virtual_time
async def test_what_a_killed_daemon_asked_of_the_kernel_goes_on(tmp_path: Path) -> None:
    product = await Product(await igpu_dgpu(), tmp_path / "run").start()
    product.machine.faults.set(before(product.kill), kind="load-module", target="vfio_pci")
    with pytest.raises(RemoteError) as caught:
        await product.handoff(GPU)
    assert caught.value.name == NO_REPLY
    assert len(product.machine.operations) == 1
    before_end = product.machine.faults.log[-1]
    await asyncio.sleep(10)
    assert "vfio_pci" in product.machine.modules.loaded
    assert product.machine.faults.log[-1] == before_end, "the dead asked for more"
    assert len(product.machine.logind.inhibitors) == 1, "its descriptors are closed, but for what systemd keeps"
    assert product.journals() == [f"{GPU}.journal"]
    await product.stop()


@in_virtual_time
async def test_killed_at_a_line_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    product = await Product(await single_nvidia(), tmp_path / "run").start()
    append: Callable[..., None] = Journal.append

    def kill_then(one: Journal, **line: object) -> None:
        if "did" in line:
            product.kill()
            raise KilledError
        append(one, **line)

    monkeypatch.setattr(Journal, "append", kill_then)
    with pytest.raises(RemoteError):
        await product.handoff(GPU)
    await asyncio.sleep(100)
    text = (product.directory / product.journals()[0]).read_text()
    assert [line.partition(":")[0] for line in text.splitlines()] == ['{"journal"', '{"will"']
    await product.stop()
    gc.collect()
    assert "never retrieved" not in caplog.text, "the dead complain, when and where nobody expects it"


@in_virtual_time
async def test_a_daemon_killed_while_it_starts(tmp_path: Path) -> None:
    product = Product(await igpu_dgpu(), tmp_path / "run")
    product.machine.faults.set(before(product.kill), kind="call", nth=3)
    await product.start()
    assert product.daemon is None
    await product.start_daemon()
    assert (await product.status(GPU))["state"] == "host"
    await product.stop()


@in_virtual_time
async def test_a_killed_daemon_is_followed_by_one_that_recovers(tmp_path: Path) -> None:
    product = await Product(await single_nvidia(), tmp_path / "run").start()
    was = product.machine.snapshot()
    product.machine.faults.set(after(product.kill), kind="remove-module", target="nvidia_uvm")
    with pytest.raises(RemoteError):
        await product.handoff(GPU)
    await product.start_daemon()
    await asyncio.sleep(2)
    assert differences(was, product.machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_a_reboot_leaves_nothing_but_what_survives_one(tmp_path: Path) -> None:
    product = await Product(await single_nvidia(), tmp_path / "run").start()
    was, boot = product.machine.snapshot(), product.machine.boot_id
    await product.handoff(GPU)
    assert product.journals()
    await product.reboot(single_nvidia)
    assert product.machine.boot_id != boot
    assert product.journals() == []
    assert differences(was, product.machine.snapshot()) == []
    assert (await product.status(GPU))["state"] == "host"
    await product.stop()


@in_virtual_time
@pytest.mark.parametrize(("error", "afterwards"), [(0, False), (5, False), (0, True), (5, True)])
async def test_a_hang_is_seen_in_its_kernel_function_and_resolves(*, error: int, afterwards: bool) -> None:
    machine = await igpu_dgpu()
    hang = Hang(machine.waits, function="snd_card_free", afterwards=afterwards)
    machine.faults.set(hang.effect, kind="write", target="driver_override")
    write = asyncio.create_task(machine.kernel.write(f"/sys/bus/pci/devices/{GPU}/driver_override", "x"))
    await asyncio.sleep(1)
    (operation,) = machine.operations
    assert machine.waits.where(operation).function == "snd_card_free"
    assert (machine.pci.at(GPU).override == "x") is afterwards
    hang.resolve(error)
    if error:
        with pytest.raises(OSError, match="Input/output"):
            await write
    await asyncio.wait({write})
    assert (machine.pci.at(GPU).override == "x") is (afterwards or not error)


@in_virtual_time
async def test_a_fault_strikes_once_or_from_then_on_and_perhaps_partly() -> None:
    machine = await igpu_dgpu()
    kernel, path = machine.kernel, f"/sys/bus/pci/devices/{GPU}/driver_override"

    async def half() -> None:
        machine.pci.at(GPU).override = "half"

    machine.faults.set(partly(half, refuse(5)), target="driver_override", nth=-2, when=lambda one: one.detail != "c")
    outcomes = []
    for text in ("a", "b", "c", "d"):
        try:
            await kernel.write(path, text)
        except OSError:
            outcomes.append(machine.pci.at(GPU).override)
        else:
            outcomes.append(text)
    assert outcomes == ["a", "half", "c", "half"]
    machine.faults.clear()
    machine.faults.set(fail_afterwards(), target=PROBE)
    with pytest.raises(OSError, match="Input/output"):
        await kernel.write(f"/sys/bus/pci/{PROBE}", GPU)
