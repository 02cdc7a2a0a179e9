"""The plan of a handoff: which of the steps this machine needs, in their fixed order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from gpuhandoff.config import HostSettings
from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.model.plan import Plan, PlannedStep
from gpuhandoff.model.request import HolderPolicy, Hugepages, Operation, Options
from gpuhandoff.model.verdict import Verdict
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.plan.display import drives_display, people_shown, sessions_shown
from gpuhandoff.plan.refusal import name_holders, refuse_handoff, unsettled
from gpuhandoff.plan.risk import refuse_risk, risk_of
from gpuhandoff.plan.services import stop_services
from gpuhandoff.plan.stacks import loaded_stack, native, shares_driver
from gpuhandoff.plan.windows import resize_bars

STATIC_PAGE_KIB = 2048
"""Static huge pages are 2 MiB: 1 GiB ones can rarely be had after boot (kernel.md 7)."""

CONFINED_UNITS = ("init.scope", "system.slice", "user.slice")
"""All of the host but machine.slice, where libvirt keeps guests (kernel.md 6)."""


def plan_handoff(
    world: World,
    gpu: Gpu,
    options: Options,
    settings: HostSettings,
    verdict: Verdict | None = None,
    stopped: Collection[str] = (),
) -> Plan:
    """Return the steps that lend `gpu` to a guest, or raise the reason why it cannot be (ProblemError).

    `verdict`: what to expect of the card afterwards; None expects nothing bad. `stopped`: services that are stopped for
    other GPUs which are away.
    """
    refuse_handoff(world, gpu, options)
    refuse_risk(gpu, options, verdict)
    leave = _leave_host(world, gpu, options, settings, stopped)
    move = _move(world, gpu, options, settings, risk_of(verdict))
    return Plan(Operation.HANDOFF, gpu.address, (*leave, *move, *_make_room(world, options, settings)), gpu.nodes)


def device_nodes(gpu: Gpu) -> list[str]:
    """Return the nodes that have to be free before the driver goes."""
    return sorted({*gpu.cards, *(node for holder in gpu.holders for node in holder.nodes)})


def _leave_host(
    world: World, gpu: Gpu, options: Options, settings: HostSettings, stopped: Collection[str]
) -> Iterator[PlannedStep]:
    with_whom = options.vm or "a virtual machine"
    yield PlannedStep(
        "inhibit-sleep",
        {"gpu": str(gpu.address), "why": f"{gpu.name} is lent to {with_whom}"},
        "keep the machine from sleeping while the GPU is away",
        "no suspend until the GPU is back",
    )
    yield PlannedStep("load-vfio", {}, "load vfio-pci")
    if drives_display(world, gpu):
        yield _stop_display(world, gpu)
    services = stop_services(world, gpu, stopped)
    if services is not None:
        yield services
    if gpu.holders:
        terminate = options.holders is HolderPolicy.TERMINATE
        ended = unsettled(world, gpu)
        yield PlannedStep(
            "settle-holders",
            {"nodes": device_nodes(gpu), "terminate": terminate, "grace": settings.holder_grace},
            f"wait until nobody has {gpu.address} open",
            f"{name_holders(ended)} will be ended" if terminate and ended else "",
        )


def _stop_display(world: World, gpu: Gpu) -> PlannedStep:
    sessions = sessions_shown(world, gpu)
    manager = world.display_manager
    seat = next((session.seat for session in sessions), "seat0")
    users = sorted(people_shown(world, gpu).values())
    return PlannedStep(
        "stop-display",
        {
            "gpu": str(gpu.address),
            "seat": seat,
            "display_manager": manager.name if manager is not None and manager.is_active else "",
            "sessions": [session.id for session in sessions],
            "nodes": device_nodes(gpu),
        },
        f"end the graphical sessions on {seat} and stop {manager.name if manager else 'the display'}",
        f"the desktop of {', '.join(users)} and every program in it" if users else "the login screen",
    )


def _move(world: World, gpu: Gpu, options: Options, settings: HostSettings, risk: str) -> Iterator[PlannedStep]:
    functions = [str(function.address) for function in gpu.functions]
    listed = ", ".join(functions)
    port = str(gpu.upstream_port) if gpu.upstream_port else ""
    yield PlannedStep(
        "claim-functions", {"functions": functions, "port": port}, f"reserve {listed} for vfio-pci, keep it powered", risk
    )
    consoles = [console.name for console in gpu.consoles if console.bound]
    if consoles and settings.consoles == "auto":
        yield PlannedStep(
            "unbind-consoles", {"consoles": consoles}, f"detach the text console {', '.join(consoles)}", "text consoles"
        )
    firmware = [framebuffer for framebuffer in gpu.framebuffers if framebuffer.platform and framebuffer.driver]
    if firmware:
        yield PlannedStep(
            "unbind-framebuffers",
            {"framebuffers": [{"device": one.name, "driver": one.driver} for one in firmware]},
            f"detach {', '.join(one.name for one in firmware)}",
        )
    if any(native(function) for function in gpu.functions):
        stack = list(loaded_stack(world, gpu))
        modules = [] if shares_driver(world, gpu) else stack
        yield PlannedStep(
            "unload-driver",
            {
                "display": str(gpu.address),
                "functions": functions,
                "modules": modules,
                "stack": stack,
                "nodes": [node for node in gpu.nodes if not node.startswith("/dev/vfio/")],
            },
            f"unload {', '.join(modules)}" if modules else f"unbind {gpu.address} from {gpu.display.driver}",
            f"disconnected: {', '.join(one.name for one in gpu.attached)}" if gpu.attached else "",
        )
    yield from resize_bars(world, gpu, options)
    yield PlannedStep("bind-vfio", {"functions": functions}, f"bind {listed} to vfio-pci")


def _make_room(world: World, options: Options, settings: HostSettings) -> Iterator[PlannedStep]:
    if options.cpus and options.cpus != world.online_cpus:
        guest = world.online_cpus - options.cpus
        yield PlannedStep(
            "confine-host",
            {
                "cpus": format_cpus(options.cpus),
                "units": list(CONFINED_UNITS),
                "interrupts": settings.confine_interrupts,
                "workqueues": settings.confine_workqueues,
                "guest_cpus": format_cpus(guest),
                "governor": settings.guest_governor,
            },
            f"keep the host on CPUs {format_cpus(options.cpus)}",
            "the host is slower",
        )
    if options.quiet:
        quiet = _quiet_processes(world, settings.quiet_processes)
        if quiet or settings.quiet_units:
            names = [*settings.quiet_units, *sorted({str(process["name"]) for process in quiet})]
            yield PlannedStep(
                "quiet-host",
                {"units": list(settings.quiet_units), "processes": quiet},
                f"freeze {', '.join(names)}",
                f"{', '.join(names)} pause",
            )
    if options.memory and (options.hugepages is not Hugepages.NONE or options.memory > world.memory_available):
        yield PlannedStep(
            "free-memory",
            {"bytes": options.memory, "compact": options.hugepages is not Hugepages.NONE},
            f"free {options.memory >> 20} MiB of memory",
            "file caches",
        )
    if options.hugepages is not Hugepages.NONE:
        yield PlannedStep(
            "back-guest-memory",
            {"kind": str(options.hugepages), "bytes": options.memory, "size_kib": STATIC_PAGE_KIB},
            f"back {options.memory >> 20} MiB with {options.hugepages} huge pages",
        )


def _quiet_processes(world: World, names: Iterable[str]) -> list[dict[str, object]]:
    wanted = set(names)
    return [
        {"pid": process.pid, "start_time": process.start_time, "name": process.name}
        for process in world.processes
        if process.name in wanted
    ]
