"""Somebody opens the card after it was found free: seen when the override is in place, before anything can hang."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.faults import Perform
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import EVERY_SOUND, igpu_dgpu, twin
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

GPU, SECOND = "0000:01:00.0", "0000:02:00.0"


def test_a_sound_server_that_lets_go_by_itself_is_no_latecomer(tmp_path: Path) -> None:
    async def main() -> None:
        product = await Product(await igpu_dgpu(sound=EVERY_SOUND), tmp_path).start()
        assert {"wireplumber"} == {process.name for process in product.machine.processes.with_path("/dev/snd/controlC1")}
        await product.handoff(GPU)
        await product.stop()

    run(main())


@pytest.mark.parametrize(
    ("build", "gpu", "node"),
    [
        (igpu_dgpu, GPU, "/dev/snd/controlC1"),  # the unbind of snd_hda_intel would wait
        (igpu_dgpu, GPU, "/dev/i2c-1"),  # so would that of the I2C bus
        (twin, SECOND, "/dev/nvidia1"),  # and where the driver is shared, that of the card
    ],
)
def test_who_comes_late_is_seen_before_the_driver_goes(
    build: Callable[[], Awaitable[SimulatedMachine]], gpu: str, node: str, tmp_path: Path
) -> None:
    async def main() -> None:
        machine = await build()
        assert machine.tree.node(node) is not None
        product = await Product(machine, tmp_path).start()
        before = machine.snapshot()

        async def come(perform: Perform) -> None:
            await perform()
            machine.processes.spawn("latecomer", uid=1000, opens=[node])

        machine.faults.set(come, kind="write", target=f"{machine.pci.at(gpu).path.rpartition('/')[2]}/driver_override")
        with pytest.raises(RemoteError, match="was opened while it was on its way: latecomer") as caught:
            await product.handoff(gpu)
        assert caught.value.name.endswith(".InUse")
        (late,) = machine.processes.named("latecomer")
        machine.processes.end(late.pid)
        assert differences(before, machine.snapshot()) == []
        await product.stop()

    run(main())
