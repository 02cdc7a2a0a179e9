"""Pure: everything that stands, or could stand, in the way of lending a GPU and getting it back."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gpuhandoff.doctor.cards import of_card
from gpuhandoff.doctor.desktop import of_desktop
from gpuhandoff.doctor.finding import Finding, Severity
from gpuhandoff.doctor.machine import of_machine
from gpuhandoff.doctor.rivals import of_rivals
from gpuhandoff.doctor.sections import of_sections
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.surroundings import Surroundings
from gpuhandoff.model.verdict import Verdict
from gpuhandoff.model.world import State, World

__all__ = ["Finding", "Severity", "examine"]


def examine(
    world: World,
    surroundings: Surroundings,
    verdicts: Mapping[PciAddress, Verdict],
    states: Mapping[PciAddress, tuple[State, str]],
    sections: Collection[PciAddress] = (),
) -> tuple[Finding, ...]:
    """Return what is found, the worst first.

    `states`: where each GPU is, and why. `sections`: the addresses that the configuration has sections for.
    """
    found = [*of_machine(world, surroundings.distribution), *of_rivals(world, surroundings), *of_desktop(world)]
    found += of_sections(world, sections)
    for gpu in world.gpus:
        found += of_card(world, gpu, verdicts[gpu.address], *states[gpu.address])
    return tuple(sorted(found, key=lambda one: one.severity.rank))
