"""What a domain means on this machine: which GPU, what the guest needs, and every reason why it cannot have it."""

from __future__ import annotations

from typing import Any

from gpuhandoff.errors import InvalidArgsError, UnsupportedError
from gpuhandoff.hypervisor.domain import DEFAULT_PAGE, Domain, Hostdev
from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.model.request import Hugepages
from gpuhandoff.model.world import Gpu, World

MADE_KIB = 2048
"""The size of static huge pages that a handoff makes; larger ones can rarely be had after boot (kernel.md 7)."""


def gpus_of(domain: Domain, world: World) -> tuple[Gpu, ...]:
    """Return the GPUs of which the domain gets a function, in the order of their addresses."""
    wanted = {hostdev.address for hostdev in domain.hostdevs}
    return tuple(gpu for gpu in world.gpus if any(function.address in wanted for function in gpu.functions))


def refuse_domain(domain: Domain, gpus: tuple[Gpu, ...], world: World) -> None:
    """Raise the first reason why the guest could not run with its GPU, as far as the domain itself is the reason."""
    if len(gpus) > 1:
        names = " and ".join(f"{gpu.address} ({gpu.name})" for gpu in gpus)
        raise UnsupportedError(f"The domain has {names}: gpuhandoff lends one GPU to a guest. Remove the others from it.")
    for gpu in gpus:
        own = [hostdev for hostdev in domain.hostdevs if any(one.address == hostdev.address for one in gpu.functions)]
        _refuse_functions(gpu, own)
        _refuse_roms(gpu, own)
    _refuse_pins(domain, world)
    _refuse_pages(domain, world)


def needs(domain: Domain, world: World) -> dict[str, Any]:
    """Return the options of the handoff that follow from the domain, by the names of their fields.

    The host keeps the CPUs that no vCPU is pinned to; a guest that may run on all of them leaves the host all. Memory is
    made ready less what is there already as huge pages that nobody uses.
    """
    found: dict[str, Any] = {}
    kept = world.online_cpus - domain.vcpu_pins
    if domain.vcpu_pins and kept:
        found["cpus"] = kept
    size = _page_size(domain, world)
    if size is None:
        found["memory"] = domain.memory
        return found
    missing = max(0, domain.memory - _free(world, size)) if size == MADE_KIB else 0
    return found | {"memory": missing, "hugepages": Hugepages.STATIC if missing else Hugepages.NONE}


def _refuse_functions(gpu: Gpu, own: list[Hostdev]) -> None:
    named = {hostdev.address for hostdev in own}
    missing = [function for function in gpu.functions if function.address not in named]
    if missing:
        listed = ", ".join(str(function.address) for function in missing)
        raise UnsupportedError(
            f"{gpu.address} ({gpu.name}) has {len(gpu.functions)} functions that move together; the domain lacks {listed}. "
            "Add a hostdev for each of them."
        )


def _refuse_roms(gpu: Gpu, own: list[Hostdev]) -> None:
    shown = [str(hostdev.address) for hostdev in own if hostdev.rom_bar is True]
    hidden = [str(hostdev.address) for hostdev in own if hostdev.rom_bar is False]
    if shown and hidden:
        raise UnsupportedError(
            f"The domain shows the ROM of {', '.join(shown)} and hides that of {', '.join(hidden)}, which are one card, "
            f"{gpu.name}. Give all of them the same <rom bar=…/>, or none."
        )


def _refuse_pins(domain: Domain, world: World) -> None:
    strange = domain.pins - world.online_cpus
    if strange:
        plural = "s" if len(strange) > 1 else ""
        raise InvalidArgsError(
            f"The domain is pinned to CPU{plural} {format_cpus(strange)}; this machine's online CPUs are "
            f"{format_cpus(world.online_cpus)}."
        )


def _refuse_pages(domain: Domain, world: World) -> None:
    """Pages of another size than ours have to be there already."""
    if domain.memory > world.memory_total:
        raise UnsupportedError(
            f"The domain has {domain.memory >> 20} MiB of memory; this machine has {world.memory_total >> 20} MiB."
        )
    if len(domain.huge_page_sizes_kib) > 1:
        return  # which memory gets which is libvirt's business; all of it has to be there
    size = _page_size(domain, world)
    if size is not None and size != MADE_KIB and _free(world, size) < domain.memory:
        raise UnsupportedError(
            f"The domain asks for {domain.memory >> 20} MiB in huge pages of {size} KiB, of which "
            f"{_free(world, size) >> 20} MiB are free. Only pages of {MADE_KIB} KiB are made when they are needed: use "
            "those, or have the others reserved at boot."
        )


def _page_size(domain: Domain, world: World) -> int | None:
    """Return the size of the domain's huge pages in KiB, None for ordinary pages; mixed sizes count as not ours."""
    sizes = domain.huge_page_sizes_kib
    if not sizes:
        return None
    if len(sizes) > 1:
        return -1
    (size,) = sizes
    return world.default_page_kib if size == DEFAULT_PAGE else size


def _free(world: World, size_kib: int) -> int:
    """Return the bytes in huge pages of a size that nobody uses."""
    return sum(pool.free * (pool.size_kib << 10) for pool in world.hugepages if pool.size_kib == size_kib)
