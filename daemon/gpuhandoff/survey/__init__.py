"""Reads the machine into one frozen World: lock-free attributes only, never opening a GPU's node, never waking one."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import replace

from gpuhandoff.host import Host
from gpuhandoff.model.cpus import parse_cpus
from gpuhandoff.model.world import Function, Gpu, World
from gpuhandoff.survey import boot, graphics, memory, modules, nodes, pci, usb, versions, windows
from gpuhandoff.survey.names import DeviceNames

__all__ = ["read_boot_id", "survey"]

DISPLAY_MANAGER = "display-manager.service"
"""The alias that every distribution gives its display manager (kernel.md 11)."""

_NAMES = DeviceNames()


async def survey(
    host: Host,
    services: Sequence[str] = (),
    *,
    with_processes: bool = False,
    with_mappings: bool = True,
    people: World | None = None,
) -> World:
    """Return the machine as it is now. `services`: units to look at; processes are listed only on request.

    Without mappings, whoever has a card mapped and not open is not seen; with `people`, sessions and units are those of
    that earlier look: enough for what nothing is decided upon. Raises OSError also where the kernel says what makes no
    sense: a machine that is not understood is left alone.
    """
    try:
        return await _survey(host, services, with_processes=with_processes, with_mappings=with_mappings, people=people)
    except (ValueError, IndexError, KeyError) as error:
        raise OSError(
            errno.EINVAL, f"what the kernel says is not understood ({type(error).__name__}: {error!r:.120})"
        ) from error


async def _survey(
    host: Host, services: Sequence[str], *, with_processes: bool, with_mappings: bool, people: World | None
) -> World:
    functions = pci.functions(host)
    gpus = [await _gpu(host, display, functions) for display in functions if display.is_display and not display.is_virtual]
    gpus = graphics.with_consoles(host, gpus)
    try:
        async with asyncio.TaskGroup() as asked:  # systemd and logind answer while a thread looks at all processes
            holding = asked.create_task(nodes.with_holders(host, gpus, mappings=with_mappings))
            if people is None:
                units = [asked.create_task(host.units.unit(name)) for name in (*services, DISPLAY_MANAGER)]
                logins = asked.create_task(host.logins.sessions())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
    if people is None:
        *found, display_manager = (one.result() for one in units)
        sessions, running = logins.result(), tuple(unit for unit in found if unit is not None)
    else:
        sessions, running, display_manager = people.sessions, people.services, people.display_manager
    processes = await host.processes.all() if with_processes else ()
    loaded = modules.loaded(host)
    available = modules.available(host, loaded)
    return World(
        boot_id=read_boot_id(host),
        kernel_release=host.kernel.read("/proc/sys/kernel/osrelease").strip(),
        gpus=tuple(holding.result()),
        kernel_version=versions.kernel(host),
        modules=loaded,
        available_modules=available,
        builtin_modules=modules.builtin(host, available),
        nvidia_version=modules.parameter(host, "/sys/module/nvidia/version"),
        nvidia_open=versions.nvidia_is_open(host),
        nvidia_modeset=modules.parameter(host, "/sys/module/nvidia_drm/parameters/modeset") == "Y",
        iommu=bool(host.kernel.entries("/sys/kernel/iommu_groups")),
        iommu_firmware=boot.firmware(host),
        boot_parameters=boot.parameters(host),
        may_resize=windows.may_resize(host),
        sessions=sessions,
        display_manager=display_manager,
        services=running,
        online_cpus=parse_cpus(host.kernel.read("/sys/devices/system/cpu/online")),
        memory_total=memory.total(host),
        memory_available=memory.available(host),
        hugepages=memory.pools(host),
        default_page_kib=memory.default_page_kib(host),
        processes=processes,
        applications=nodes.applications(host, processes),
    )


def read_boot_id(host: Host) -> str:
    """Return what tells this boot from every other."""
    return host.kernel.read("/proc/sys/kernel/random/boot_id").strip()


async def _gpu(host: Host, display: Function, functions: Sequence[Function]) -> Gpu:
    """Return a card with everything that moves with it."""
    card = tuple(pci.with_power(host, one) for one in functions if pci.belongs(display, one))
    display = next(one for one in card if one.address == display.address)
    groups = {one.iommu_group for one in card if one.iommu_group is not None}
    others = tuple(
        one for one in functions if one.iommu_group in groups and one.address not in {mine.address for mine in card}
    )
    name = _NAMES.name(host.kernel, display.vendor, display.device)
    gpu = Gpu(
        display.address,
        name,
        (display, *(one for one in card if one != display)),
        group=tuple(one for one in others if not one.is_bridge),
        ports=tuple(one for one in others if one.is_bridge),
        upstream_port=pci.upstream_port(host, display.address),
        audio=pci.audio(host, display, functions),
        virtual_functions=pci.virtual_functions(host, display.address),
    )
    return replace(
        gpu,
        cards=graphics.nodes(host, display.address),
        connectors=graphics.connectors(host, display.address),
        boot_display=graphics.boot_display(host, display.address),
        bars=windows.bars(host, display),
        reserved=tuple(region for group in sorted(groups) for region in windows.reserved(host, group)),
        attached=usb.attached(host, gpu.functions),
        framebuffers=graphics.framebuffers(host, display.address),
    )
