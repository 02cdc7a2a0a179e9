"""What the doctor finds on a machine that is changed after it was looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from gpuhandoff.doctor import Finding, examine
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.surroundings import Distribution, Family, Surroundings
from gpuhandoff.model.verdict import Kind, Verdict
from gpuhandoff.model.world import Gpu, State, World
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.survey import survey

GPU = PciAddress.parse("01:00.0")
SAFE = Verdict(Kind.SAFE, "Because.", "somebody")
HOME = (State.HOST, "")


def world_of(build: Callable[[], Awaitable[SimulatedMachine]]) -> World:
    """Return what the survey sees of a scenario."""

    async def look() -> World:
        machine = await build()
        broker = LoopbackBroker()
        await machine.serve(broker)
        return await survey(simulated_host(machine, broker.connect()))

    return run(look())


def found(
    world: World,
    family: Family = Family.DEBIAN,
    verdict: Verdict = SAFE,
    state: tuple[State, str] = HOME,
) -> list[Finding]:
    """Return the findings; the verdict and the state are those of every GPU."""
    around = Surroundings(Distribution(family))
    return list(
        examine(world, around, {gpu.address: verdict for gpu in world.gpus}, {gpu.address: state for gpu in world.gpus})
    )


def one(findings: list[Finding], check: str, gpu: str = "0000:01:00.0") -> Finding:
    """Return the finding of a kind."""
    return next(each for each in findings if each.check == check and each.gpu in {"", gpu})


def dgpu_of(world: World) -> Gpu:
    """Return the card that is not the processor's graphics."""
    gpu = world.gpu(GPU)
    assert gpu is not None
    return gpu


def with_dgpu(world: World, **changes: Any) -> World:
    """Return the machine with that card changed."""
    dgpu = dgpu_of(world)
    return replace(world, gpus=tuple(replace(gpu, **changes) if gpu is dgpu else gpu for gpu in world.gpus))
