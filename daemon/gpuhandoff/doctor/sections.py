"""Sections of the configuration that set nothing here."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gpuhandoff.doctor.finding import Finding, Severity
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.world import World

_RELOAD = "then run `systemctl reload gpuhandoffd`."


def of_sections(world: World, addresses: Collection[PciAddress]) -> Iterator[Finding]:
    """Yield those, by the addresses that they have, that name no GPU of this machine: nobody would miss them."""
    ours = {gpu.address for gpu in world.gpus}
    for address in sorted(set(addresses) - ours):
        gpu = world.gpu(address)
        if gpu is not None:
            what = f'The section [gpu."{address}"] of the configuration sets nothing: {gpu.name} goes by its first function.'
            remedy = f'Call it [gpu."{gpu.address}"], {_RELOAD}'
        else:
            what = f'The section [gpu."{address}"] of the configuration sets nothing: there is no GPU at that address now.'
            remedy = f"If the card has moved to another address, correct it, {_RELOAD}"
        evidence = ", ".join(f"{one.address}: {one.name}" for one in world.gpus)
        yield Finding(Severity.WARNING, "section", what, evidence and f"GPUs here: {evidence}.", remedy)
