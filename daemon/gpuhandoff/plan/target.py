"""Which GPU a request means."""

from __future__ import annotations

from collections.abc import Collection

from gpuhandoff.errors import AmbiguousError, NotFoundError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.plan.display import drives_display


def choose(world: World, operation: Operation, wanted: PciAddress | None, away: Collection[PciAddress]) -> Gpu:
    """Return the GPU at `wanted`, or the only one that qualifies.

    For Reclaim that is the one that is away; for Handoff the only GPU, or the only one that shows no desktop. Raises
    NotFoundError or AmbiguousError.
    """
    if wanted is not None:
        gpu = world.gpu(wanted)
        if gpu is None and wanted in away:
            raise NotFoundError(_gone([wanted]))
        whole = next((gpu for gpu in world.gpus if wanted in gpu.virtual_functions), None)
        if whole is not None:
            raise NotFoundError(
                f"{wanted} is a virtual function (SR-IOV) of {whole.address} ({whole.name}), and gpuhandoff lends whole "
                "cards. libvirt gives it to a guest by itself, as a hostdev with managed='yes'."
            )
        if gpu is None:
            raise NotFoundError(f"There is no GPU at {wanted}. This machine has {_names(world.gpus)}.")
        return gpu
    if operation is Operation.RECLAIM:
        candidates = [gpu for gpu in world.gpus if gpu.address in away or gpu.on_vfio]
        if not candidates:
            raise NotFoundError(_gone(away) if away else "No GPU is away: there is nothing to reclaim.")
    else:
        at_home = [gpu for gpu in world.gpus if gpu.address not in away and not gpu.on_vfio]
        idle = [gpu for gpu in at_home if not drives_display(world, gpu)]
        candidates = idle or at_home or list(world.gpus)
        if not candidates:
            raise NotFoundError("This machine has no GPU.")
    if len(candidates) > 1:
        raise AmbiguousError(f"Name the GPU by its address: {_names(candidates)} all qualify.")
    return candidates[0]


def _gone(away: Collection[PciAddress]) -> str:
    return (
        f"{', '.join(map(str, sorted(away)))} was handed off and has left the PCI bus since. Put it back, or write 1 to "
        "/sys/bus/pci/rescan, and reclaim it then; a reboot brings everything back."
    )


def _names(gpus: Collection[Gpu]) -> str:
    return ", ".join(f"{gpu.address} ({gpu.name})" for gpu in gpus) or "no GPU at all"
