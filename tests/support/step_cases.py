"""One case for every step and every shape of machine that matters to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from gpuhandoff.model.plan import Json
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, SECOND_GPU, igpu_dgpu, single_amd, single_nvidia, twin
from gpuhandoff.simulation.sessions import Compositor

NVIDIA = ["nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"]
UNITS = ["init.scope", "system.slice", "user.slice"]

Arguments = Callable[[SimulatedMachine], Json]


@dataclass(frozen=True, slots=True)
class StepCase:
    """Steps in order, the last of which is the one in question; `arguments` look at the machine when it is their turn."""

    machine: Callable[[], Awaitable[SimulatedMachine]]
    chain: tuple[tuple[str, Arguments], ...]
    reversible: bool = True
    """Whether `holds` tells before from after."""


def functions(machine: SimulatedMachine, gpu: str = GPU) -> list[str]:
    """Return the addresses of a card's functions."""
    return [address for address in machine.pci.devices if address.rpartition(".")[0] == gpu.rpartition(".")[0]]


def stop_display(machine: SimulatedMachine) -> Json:
    """Return what the plan gives where one GPU shows everything."""
    return {
        "gpu": GPU,
        "seat": "seat0",
        "display_manager": "sddm.service",
        "sessions": sorted(machine.sessions.sessions),
        "nodes": list(machine.display_nodes([GPU])),
    }


def stop_services(_machine: SimulatedMachine) -> Json:
    """Return a service that runs and one that this machine has not got."""
    return {"units": ["nvidia-persistenced.service", "nvidia-powerd.service"]}


def settle(machine: SimulatedMachine, *, terminate: bool = False, gpu: str = GPU) -> Json:
    """Return all nodes of a card."""
    nodes = [node.path for node in machine.tree.nodes() if node.device.endswith(tuple(functions(machine, gpu)))]
    return {"nodes": sorted(nodes), "terminate": terminate, "grace": 3}


def load(_machine: SimulatedMachine) -> Json:
    """The modules of VFIO are those of every GPU."""
    return {}


def claim(machine: SimulatedMachine, *, gpu: str = GPU) -> Json:
    """Return a card and its port."""
    parent = machine.pci.at(gpu).parent
    return {"functions": functions(machine, gpu), "port": str(parent.address) if parent else ""}


def consoles(_machine: SimulatedMachine) -> Json:
    """Return the console on a framebuffer."""
    return {"consoles": ["vtcon1"]}


def framebuffers(_machine: SimulatedMachine) -> Json:
    """Return the firmware's framebuffer."""
    return {"framebuffers": [{"device": "efi-framebuffer.0", "driver": "efi-framebuffer"}]}


def unload(machine: SimulatedMachine, *, modules: list[str], gpu: str = GPU) -> Json:
    """Return a card with the modules that go."""
    return {"display": gpu, "functions": functions(machine, gpu), "modules": modules, "stack": modules}


def resize(machine: SimulatedMachine, *, gpu: str = GPU) -> Json:
    """Return the largest window, made small."""
    return {"address": gpu, "bars": [{"number": 1, "bytes": 256 << 20}]}


def bind(machine: SimulatedMachine, *, gpu: str = GPU) -> Json:
    """Return a card."""
    return {"functions": functions(machine, gpu)}


def confine(_machine: SimulatedMachine) -> Json:
    """Return everything that can be confined."""
    return {
        "cpus": "0-1",
        "units": UNITS,
        "interrupts": True,
        "workqueues": True,
        "guest_cpus": "2-7",
        "governor": "performance",
    }


def quiet(machine: SimulatedMachine) -> Json:
    """Return a service and a program."""
    firefox = machine.processes.named("firefox")[0]
    return {
        "units": ["cron.service"],
        "processes": [{"pid": firefox.pid, "start_time": firefox.start_time, "name": "firefox"}],
    }


def free(_machine: SimulatedMachine) -> Json:
    """Return more than there is."""
    return {"bytes": 14 << 30, "compact": True}


def static(_machine: SimulatedMachine) -> Json:
    """Return 2 GiB of pages."""
    return {"kind": "static", "bytes": 2 << 30, "size_kib": 2048}


def transparent(_machine: SimulatedMachine) -> Json:
    """Return transparent huge pages."""
    return {"kind": "transparent", "bytes": 2 << 30, "size_kib": 2048}


def release(machine: SimulatedMachine) -> Json:
    """Return a card that somebody else bound to vfio-pci."""
    return {"functions": functions(machine), "modules": NVIDIA[::-1]}


async def firmware_only() -> SimulatedMachine:
    """Return a machine whose GPU no driver has taken since it was switched on."""
    above = hardware.port(1, 1)
    card = hardware.rtx_4070(above, 1, 14, boot_vga=True)
    machine = SimulatedMachine((above, *card))
    machine.graphics.add_firmware(card[0])
    await machine.boot((), ())
    return machine


async def plasma() -> SimulatedMachine:
    """Return a machine whose desktop outlives its display manager and its session, for as long as nobody ends it."""
    machine = await single_nvidia(ends=Compositor.SURVIVES)
    machine.sessions.user_stop_delay = 3600.0
    return machine


async def driverless() -> SimulatedMachine:
    """Return a machine whose second GPU has no driver, only its sound."""
    machine = await igpu_dgpu()
    for module in NVIDIA:
        await machine.kernel.remove_module(module)
    return machine


async def foreign() -> SimulatedMachine:
    """Return a machine whose second GPU somebody else has bound to vfio-pci by driverctl."""
    machine = await driverless()
    await machine.kernel.load_module("vfio_pci")
    for address in reversed(functions(machine)):
        driver = machine.kernel.link(f"/sys/bus/pci/devices/{address}/driver")
        if driver is not None:
            await machine.kernel.write(f"/sys/bus/pci/drivers/{driver}/unbind", address)
        await machine.kernel.write(f"/sys/bus/pci/devices/{address}/driver_override", "vfio-pci")
        await machine.kernel.write("/sys/bus/pci/drivers_probe", address)
    return machine


async def never_huge() -> SimulatedMachine:
    """Return a machine where transparent huge pages are switched off."""
    machine = await igpu_dgpu()
    machine.memory.transparent = {"enabled": "never", "defrag": "never", "shmem_enabled": "never"}
    return machine


SCREEN_OFF: tuple[tuple[str, Arguments], ...] = (
    ("load-vfio", load),
    ("stop-display", stop_display),
    ("stop-gpu-services", stop_services),
    ("settle-holders", settle),
    ("claim-functions", claim),
)

CASES: dict[str, StepCase] = {
    "load-vfio": StepCase(single_nvidia, SCREEN_OFF[:1]),
    "stop-display": StepCase(single_nvidia, SCREEN_OFF[:2]),
    "stop-display, GNOME": StepCase(partial(single_amd, ends=Compositor.USER_SERVICE), SCREEN_OFF[:2]),
    "stop-display, Plasma": StepCase(plasma, SCREEN_OFF[:2]),
    "stop-gpu-services": StepCase(single_nvidia, SCREEN_OFF[:3]),
    "settle-holders": StepCase(single_nvidia, SCREEN_OFF[:4], reversible=False),
    "claim-functions": StepCase(single_nvidia, SCREEN_OFF),
    "claim-functions, asleep": StepCase(igpu_dgpu, (("claim-functions", claim),)),
    "claim-functions, 6.1": StepCase(partial(igpu_dgpu, kernel="6.1.0-56-amd64"), (("claim-functions", claim),)),
    "unbind-consoles": StepCase(single_amd, (*SCREEN_OFF, ("unbind-consoles", consoles))),
    "unbind-framebuffers": StepCase(firmware_only, (("claim-functions", claim), ("unbind-framebuffers", framebuffers))),
    "unload-driver, NVIDIA": StepCase(single_nvidia, (*SCREEN_OFF, ("unload-driver", partial(unload, modules=NVIDIA)))),
    "unload-driver, AMD": StepCase(
        single_amd,
        (*SCREEN_OFF, ("unbind-consoles", consoles), ("unload-driver", partial(unload, modules=["amdgpu"]))),
    ),
    "unload-driver, second": StepCase(
        igpu_dgpu, (("claim-functions", claim), ("unload-driver", partial(unload, modules=NVIDIA)))
    ),
    "unload-driver, shared": StepCase(
        twin,
        (
            ("claim-functions", partial(claim, gpu=SECOND_GPU)),
            ("unload-driver", partial(unload, modules=[], gpu=SECOND_GPU)),
        ),
    ),
    "resize-bars": StepCase(
        igpu_dgpu,
        (("claim-functions", claim), ("unload-driver", partial(unload, modules=NVIDIA)), ("resize-bars", resize)),
    ),
    "bind-vfio, NVIDIA": StepCase(
        single_nvidia, (*SCREEN_OFF, ("unload-driver", partial(unload, modules=NVIDIA)), ("bind-vfio", bind))
    ),
    "bind-vfio, AMD": StepCase(
        single_amd, (*SCREEN_OFF, ("unload-driver", partial(unload, modules=["amdgpu"])), ("bind-vfio", bind))
    ),
    "bind-vfio, no driver": StepCase(
        driverless,
        (
            ("load-vfio", load),
            ("claim-functions", claim),
            ("unload-driver", partial(unload, modules=[])),
            ("bind-vfio", bind),
        ),
    ),
    "confine-host": StepCase(igpu_dgpu, (("confine-host", confine),)),
    "quiet-host": StepCase(igpu_dgpu, (("quiet-host", quiet),)),
    "free-memory": StepCase(igpu_dgpu, (("free-memory", free),), reversible=False),
    "back-guest-memory, static": StepCase(igpu_dgpu, (("back-guest-memory", static),)),
    "back-guest-memory, transparent": StepCase(never_huge, (("back-guest-memory", transparent),)),
    "release-functions": StepCase(foreign, (("release-functions", release),)),
}
