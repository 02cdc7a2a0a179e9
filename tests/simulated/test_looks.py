"""What the daemon knows of the GPUs while it looks at the machine and others move them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import hang
from gpuhandoff.simulation.scenarios import SCENARIOS
from tests.support.product import Product

GPU, AUDIO = "0000:01:00.0", "0000:01:00.1"
PCI = "/sys/bus/pci"


def _announced(one: Product) -> list[tuple[str, str, str]]:
    found = [signal.body for signal in one.signals if signal.member == "DriverChanged"]
    return [(str(function), str(old), str(new)) for function, old, new in found]


@in_virtual_time
async def test_a_look_that_began_before_a_move_does_not_take_it_back(tmp_path: Path) -> None:
    """A look takes seconds on a busy machine; what it read first is old when it ends (seen on the real kernel)."""
    one = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
    kernel, answers = one.machine.kernel, asyncio.Event()
    slow = one.machine.faults.set(hang(answers), kind="call", target="ListSessions")
    await kernel.write(f"{PCI}/drivers/snd_hda_intel/unbind", AUDIO)
    await asyncio.sleep(1)
    assert slow.seen == 1  # a look has read the drivers, and waits for the sessions
    await kernel.write(f"{PCI}/drivers/nvidia/unbind", GPU)
    await asyncio.sleep(1)
    answers.set()
    await asyncio.sleep(10)
    assert one.states() == ["foreign"]
    await kernel.write(f"{PCI}/drivers_probe", GPU)
    await kernel.write(f"{PCI}/drivers_probe", AUDIO)
    await asyncio.sleep(10)
    assert one.states() == ["foreign", "host"]
    assert _announced(one) == [
        (AUDIO, "snd_hda_intel", ""),
        (GPU, "nvidia", ""),
        (GPU, "", "nvidia"),
        (AUDIO, "", "snd_hda_intel"),
    ]
    await one.stop()
