"""Steps at a second GPU, and at one that is away."""

from __future__ import annotations

from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import igpu_dgpu
from tests.support.step_cases import (
    NVIDIA,
    bind,
    claim,
    unload,
)
from tests.support.steps import StepBench

AUDIO = "0000:01:00.1"


DEVICES = "/sys/bus/pci/devices"


RENDER = "/dev/dri/renderD129"


def driver(machine: SimulatedMachine, address: str) -> str | None:
    return machine.kernel.link(f"{DEVICES}/{address}/driver")


def writes(machine: SimulatedMachine, target: str) -> list[str]:
    """What was written to attributes of this name, in order."""
    return [one.detail.strip() for one in machine.faults.log if one.kind == "write" and one.target.endswith(target)]


async def second_gpu() -> StepBench:
    """Claimed, still with its driver."""
    bench = await StepBench.of(await igpu_dgpu())
    await bench.apply("load-vfio", {})
    await bench.apply("claim-functions", claim(bench.machine))
    return bench


async def away() -> StepBench:
    """On vfio-pci."""
    bench = await second_gpu()
    await bench.apply("unload-driver", unload(bench.machine, modules=NVIDIA))
    await bench.apply("bind-vfio", bind(bench.machine))
    return bench
