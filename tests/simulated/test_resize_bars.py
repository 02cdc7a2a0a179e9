"""Resizable BAR for a guest: set while no driver has the card, checked, and set back before one gets it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gpuhandoff.errors import RolledBackError
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import refuse
from gpuhandoff.simulation.scenarios import igpu_dgpu, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product
from tests.support.step_cases import resize
from tests.support.steps import StepBench

GPU = "0000:01:00.0"
STOP = {"stop-display": Variant("b", True)}


def bars(text: str) -> dict[str, Variant]:
    return {**STOP, "bars": Variant("s", text)}


async def handoff(product: Product, text: str) -> None:
    await product.call("Handoff", "sa{sv}", GPU, bars(text))


@in_virtual_time
async def test_a_window_is_small_for_the_guest_and_large_again_for_the_host(tmp_path: Path) -> None:
    machine = await single_nvidia()
    before = machine.snapshot()
    product = await Product(machine, tmp_path).start()
    await handoff(product, "1=256M")
    assert machine.snapshot()["functions"][GPU]["windows"] == [16, 256, 32]
    product.kill()
    await product.start_daemon()
    await product.reclaim(GPU)
    assert differences(before, machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_a_sleeping_card_whose_windows_cannot_be_resized_says_so_in_words(tmp_path: Path) -> None:
    """While it slept it could not be asked."""
    machine = await igpu_dgpu()
    before = machine.snapshot()
    product = await Product(machine, tmp_path).start()
    with pytest.raises(RemoteError) as caught:
        await handoff(product, "0=256M")
    assert caught.value.name.endswith(".Unsupported")
    assert "Window 0 of 0000:01:00.0 cannot be resized" in caught.value.message
    assert "ENOENT" not in caught.value.message
    assert differences(before, machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_what_is_as_it_should_be_is_left(tmp_path: Path) -> None:
    machine = await single_nvidia()
    product = await Product(machine, tmp_path).start()
    for text in ("leave", "1=16G"):
        plan = await product.call("Plan", "ssa{sv}", GPU, "handoff", bars(text))
        assert "resize-bars" not in [step[0] for step in plan]
    plan = await product.call("Plan", "ssa{sv}", GPU, "handoff", bars("1=256M"))
    names = [step[0] for step in plan]
    assert names.index("unload-driver") + 1 == names.index("resize-bars") == names.index("bind-vfio") - 1
    await product.stop()


@in_virtual_time
async def test_what_cannot_be_is_refused_before_the_screen_goes_dark(tmp_path: Path) -> None:
    product = await Product(await single_nvidia(), tmp_path).start()
    for text, words in (
        ("1=128M", "can have 256M, 512M,"),
        ("0=32M", "window 0 of 0000:01:00.0 .* cannot be resized"),
        ("5=256M", "has no memory window 5"),
        ("1=255M", "bars: leave, or memory windows"),
        ("9=256M", "bars: leave, or memory windows"),
        ("1=256M,1=512M", "bars: leave, or memory windows"),
    ):
        with pytest.raises(RemoteError, match=words):
            await handoff(product, text)
    assert (await product.status(GPU))["state"] == "host"
    await product.stop()


@in_virtual_time
async def test_a_card_that_sleeps_is_not_woken_for_the_question(tmp_path: Path) -> None:
    machine = await igpu_dgpu()
    before = machine.snapshot()
    product = await Product(machine, tmp_path).start()
    await product.call("Plan", "ssa{sv}", GPU, "handoff", bars("1=128M"))
    assert machine.pci.at(GPU).wakes == 0
    with pytest.raises(RemoteError, match="resize-bars failed: EINVAL"):
        await handoff(product, "1=128M")
    assert differences(before, machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_a_window_that_finds_no_place_never_reaches_the_driver(tmp_path: Path) -> None:
    machine = await single_nvidia()
    product = await Product(machine, tmp_path).start()
    machine.pci.at(GPU).homeless = True
    with pytest.raises(RemoteError, match="no place in memory") as caught:
        await handoff(product, "1=256M")
    assert caught.value.name.endswith(".Stuck")
    assert machine.pci.at(GPU).driver is None
    await product.stop()


@in_virtual_time
async def test_a_window_that_keeps_its_size_is_no_reason_to_keep_the_card(tmp_path: Path) -> None:
    machine = await single_nvidia()
    product = await Product(machine, tmp_path).start()
    await handoff(product, "1=256M")
    machine.faults.set(refuse(errno.ENOSPC), kind="write", target="resource1_resize", nth=0)
    await product.reclaim(GPU)
    assert (await product.status(GPU))["state"] == "host"
    assert machine.snapshot()["functions"][GPU]["windows"] == [16, 256, 32]
    await product.stop()


@in_virtual_time
async def test_a_card_that_a_driver_has_got_meanwhile_is_left() -> None:
    machine = await single_nvidia()
    bench = await StepBench.of(machine)
    with pytest.raises(RolledBackError, match="cannot be set while nvidia has it"):
        await bench.apply("resize-bars", resize(machine))
    assert machine.snapshot()["functions"][GPU]["windows"] == [16, 16384, 32]


@in_virtual_time
@pytest.mark.parametrize("kernel", ["6.12.107+deb13-amd64", "7.2.13+deb14-amd64"])
async def test_without_the_capability_it_is_refused_before_the_screen_goes_dark(tmp_path: Path, kernel: str) -> None:
    machine = await single_nvidia(kernel=kernel)
    machine.sys_admin = False
    before = machine.snapshot()
    product = await Product(machine, tmp_path).start()
    with pytest.raises(RemoteError, match=r"bars: .* started without CAP_SYS_ADMIN") as caught:
        await handoff(product, "1=256M")
    assert caught.value.name.endswith(".Unsupported")
    assert [signal for signal in product.signals if signal.member == "Progress"] == []
    assert differences(before, machine.snapshot()) == []
    await handoff(product, "leave")
    await product.stop()


@in_virtual_time
async def test_a_new_kernel_asks_for_the_capability_that_the_daemon_has(tmp_path: Path) -> None:
    machine = await single_nvidia(kernel="7.2.13+deb14-amd64")
    product = await Product(machine, tmp_path).start()
    await handoff(product, "1=256M")
    assert machine.snapshot()["functions"][GPU]["windows"] == [16, 256, 32]
    await product.stop()


@in_virtual_time
async def test_a_kernel_that_does_not_let_it_says_so_in_words(tmp_path: Path) -> None:
    machine = await single_nvidia(kernel="7.2.13+deb14-amd64")
    before = machine.snapshot()
    product = await Product(machine, tmp_path).start()
    machine.faults.set(refuse(errno.EPERM), kind="write", target="resource1_resize", nth=0)
    with pytest.raises(RemoteError) as caught:
        await handoff(product, "1=256M")
    assert caught.value.name.endswith(".Unsupported")
    assert "does not let gpuhandoffd resize window 1 of 0000:01:00.0" in caught.value.message
    assert "EPERM" not in caught.value.message
    assert differences(before, machine.snapshot()) == []
    await product.stop()
