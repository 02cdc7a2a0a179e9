"""What a request means: the configuration's defaults of the GPU it names, or means without naming it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import EVERY_SOUND, igpu_dgpu, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

CARD = PciAddress.parse("0000:01:00.0")


@in_virtual_time
@pytest.mark.parametrize("named", ["", "01:00.0", "0000:01:00.1"])
async def test_a_gpus_section_counts_however_it_is_named(named: str, tmp_path: Path) -> None:
    configuration = Configuration(gpus={CARD: {"stop_display": True}})
    product = await Product(await single_nvidia(), tmp_path, configuration).start()
    await product.call("Handoff", "sa{sv}", named, {})
    assert (await product.status(str(CARD)))["state"] == "detached"
    asked = [question.action for question in product.machine.polkit.questions]
    assert "org.gpuhandoff.handoff-display" in asked
    await product.stop()


@in_virtual_time
async def test_without_a_name_the_gpu_that_shows_nothing_is_meant(tmp_path: Path) -> None:
    product = await Product(await igpu_dgpu(), tmp_path).start()
    await product.call("Handoff", "sa{sv}", "", {})
    assert (await product.status(str(CARD)))["state"] == "detached"
    with pytest.raises(RemoteError, match=r"0000:00:02\.0 .* cannot be unloaded") as caught:
        await product.call("Handoff", "sa{sv}", "", {})
    assert caught.value.name == "org.gpuhandoff.Error.InUse"
    await product.call("Reclaim", "sa{sv}", "", {})
    assert (await product.status(str(CARD)))["state"] == "host"
    await product.stop()


@in_virtual_time
async def test_a_sound_server_that_watches_the_cards_audio_is_neither_in_the_way_nor_ended(tmp_path: Path) -> None:
    machine = await igpu_dgpu(sound=EVERY_SOUND)
    assert machine.processes.with_path("/dev/snd/controlC1")
    before = machine.snapshot()
    product = await Product(machine, tmp_path).start()
    await product.call("Handoff", "sa{sv}", str(CARD), {})
    await product.call("Reclaim", "sa{sv}", str(CARD), {})
    await asyncio.sleep(2)
    assert differences(before, machine.snapshot()) == []
    await product.stop()
