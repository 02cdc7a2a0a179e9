"""A machine from the report of a real one: `gpuhandoffd --simulate report.json`.

What the report's survey says is rebuilt: cards with their functions, groups, windows and outputs, drivers and modules, the
kernel, sessions and whoever has a card open. What it does not say is that of any other simulated machine. Numbers of
nodes and processes may differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.roles import SOUND_SERVERS, shows_picture
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.drivers import Driver
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.pci import INTEL, PciDevice
from gpuhandoff.simulation.scenarios import EVERY_SOUND, ONBOARD_SOUND, assemble, boot
from gpuhandoff.simulation.sessions import Login
from gpuhandoff.simulation.usb import Plugged

Json = Mapping[str, Any]
LARGEST = 64 << 20
"""Bytes of a report that are read."""
_MEBIBYTE = 20
_COMPOSITORS = re.compile(r"kwin_wayland|kwin_x11|gnome-shell|Hyprland|sway|weston|cosmic-comp|niri|labwc|Xorg|X")


class ReplayError(Exception):
    """The file is no report that a machine could be made of; the sentence says why."""


def read_report(path: Path) -> Json:
    """Return the document in a file; raises ReplayError."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST).decode(errors="replace")
        start = re.search(r"^\{", text, re.MULTILINE)
        document, _ = json.JSONDecoder().raw_decode(text, start.start() if start else 0)
        if not isinstance(document, dict) or not isinstance(document["machine"]["gpus"], list):
            raise TypeError("machine")
    except OSError as error:
        raise ReplayError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ReplayError(f"{path} is not a report: `gpuhandoff report --json` or --output writes one.") from error
    return document


async def replay(document: Json) -> SimulatedMachine:
    """Return the machine of a report, booted; raises ReplayError when it makes no sense."""
    try:
        return await _replay(document["machine"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ReplayError(f"The report describes no machine that makes sense ({type(error).__name__}: {error}).") from error


async def _replay(world: Json) -> SimulatedMachine:
    devices = _devices(world["gpus"])
    machine = assemble(
        tuple(devices.values()),
        str(world["kernel_release"]),
        str(world["nvidia_version"]),
        iommu=bool(world["iommu"]),
        iommu_table=str(world.get("iommu_firmware", "DMAR")),
        command_line=" ".join(["BOOT_IMAGE=/boot/vmlinuz", *world.get("boot_parameters", ())]),
        pci_ids="".join(_names(world["gpus"])),
    )
    machine.nvidia_open = bool(world.get("nvidia_open", True))
    if world.get("kernel_version"):
        machine.tree.text("/proc/version", f"Linux version {world['kernel_release']} Debian {world['kernel_version']}\n")
    for gpu in world["gpus"]:
        lines = [f"{one['start']:#018x} {one['end']:#018x} {one['kind']}" for one in gpu.get("reserved", ())]
        machine.direct_regions[_group(gpu["functions"][0])] = [line for line in lines if not line.endswith(" msi")]
    if any(gpu["functions"][0]["vendor"] == INTEL and gpu.get("audio") == [] for gpu in world["gpus"]):
        machine.pci.at(str(hardware.intel_audio().address)).override = "none"
    for driver in _unheard_of(machine, world["gpus"]):
        await machine.pci.register(driver)
    modules = [one["name"] for one in reversed(world["modules"]) if one["name"] in machine.modules.available]
    persistence = _runs(world, "nvidia-persistenced.service")
    sound = EVERY_SOUND if _sound_is_watched(world["gpus"]) else ONBOARD_SOUND
    await boot(machine, tuple(modules), _logins(world), persistence=persistence, sound=sound)
    _plug(machine, world["gpus"])
    _hold(machine, world["gpus"])
    return machine


def _devices(gpus: Iterable[Json]) -> dict[str, PciDevice]:
    """Return every function that the report names, ports first: what sits below one is told by its card."""
    found: dict[str, PciDevice] = {}
    for gpu in gpus:
        for one in gpu.get("ports", ()):
            found.setdefault(one["address"], _device(one))
        above = gpu.get("upstream_port")
        if above and above not in found:
            address = PciAddress.parse(above)
            found[above] = PciDevice(address, INTEL, 0x460D, hardware.BRIDGE, 900 + len(found), name="PCIe port")
    for gpu in gpus:
        above = found.get(gpu.get("upstream_port") or "")
        for one in gpu["functions"]:
            device = found[one["address"]] = _device(one, above)
            if one["address"] == gpu["address"]:
                device.name = gpu["name"]
                device.connectors = tuple((each["name"], each["connected"]) for each in gpu.get("connectors", ()))
                device.bars = tuple(_bar(bar) for bar in gpu.get("bars", ()))
        for address in gpu.get("virtual_functions", ()):
            card, group = found[gpu["address"]], 800 + len(found)
            found[address] = PciDevice(
                PciAddress.parse(address), card.vendor, card.device, card.pci_class, group, parent=above, physical=card
            )
        for one in (*gpu["group"], *gpu.get("audio", ())):
            found.setdefault(one["address"], _device(one))
    return found


def _device(one: Json, above: PciDevice | None = None) -> PciDevice:
    device = PciDevice(
        PciAddress.parse(one["address"]),
        int(one["vendor"]),
        int(one["device"]),
        int(one["pci_class"]),
        _group(one),
        parent=above,
        subsystem=(int(one["subsystem_vendor"]), int(one["subsystem_device"])),
        boot_vga=bool(one["boot_vga"]),
        reset_method=" ".join(one.get("reset_methods", ())),
    )
    power = one.get("power") or {}
    device.control = power.get("control") or "on"
    device.d3cold_allowed = bool(power.get("d3cold_allowed", True))
    driver = one["driver"]
    device.override = "none" if driver is None else driver if driver in {"vfio-pci", "pci-stub"} else ""
    return device


def _bar(bar: Json) -> tuple[int, int, tuple[int, ...]]:
    possible = tuple(size >> _MEBIBYTE for size in bar["possible"])
    return (int(bar["number"]), max(int(bar["size"]) >> _MEBIBYTE, 1), possible)


def _group(one: Json) -> int:
    return int(one["iommu_group"]) if one["iommu_group"] is not None else 0


def _names(gpus: Iterable[Json]) -> Iterator[str]:
    """Yield lines of pci.ids that give each card its name back."""
    for gpu in gpus:
        display = next(one for one in gpu["functions"] if one["address"] == gpu["address"])
        maker, _, name = gpu["name"].partition(" ")
        yield f"{display['vendor']:04x}  {maker}\n\t{display['device']:04x}  {name}\n"


def _unheard_of(machine: SimulatedMachine, gpus: Iterable[Json]) -> Iterator[Driver]:
    """Yield drivers that no simulated module has, so that what they are bound to is bound."""
    known = {
        driver.name for module in machine.modules.available.values() if module.driver for driver in [module.driver(machine)]
    }
    known |= {"pcieport", "xhci_hcd", "virtio-pci", "vfio-pci", "pci-stub"}
    found: dict[str, set[tuple[int, int]]] = {}
    for gpu in gpus:
        for one in (*gpu["functions"], *gpu["group"], *gpu.get("audio", ()), *gpu.get("ports", ())):
            if one["driver"] is not None and one["driver"] not in known:
                found.setdefault(one["driver"], set()).add((one["vendor"], one["device"]))
    for name, ids in sorted(found.items()):
        yield Driver(machine, name, None, ids=ids)


def _logins(world: Json) -> tuple[Login, ...]:
    """Return who is logged in with a desktop, and on which cards it is."""
    found = []
    for session in world["sessions"]:
        if session["type"] in {"wayland", "x11", "mir"} and session["kind"] in {"user", "greeter"}:
            mine = [gpu for gpu in world["gpus"] if any(_belongs(holder, session) for holder in gpu["holders"])]
            names = [holder["process"]["name"] for gpu in mine for holder in gpu["holders"] if _belongs(holder, session)]
            compositor = next((name for name in names if _COMPOSITORS.fullmatch(name)), "kwin_wayland")
            cards = tuple(gpu["address"] for gpu in mine)
            found.append(
                Login(session["user"], session["uid"], compositor, cards, kind=session["kind"], type=session["type"])
            )
    return tuple(found)


def _belongs(holder: Json, session: Json) -> bool:
    shows = shows_picture(holder["process"]["name"], holder["nodes"])
    return shows and not holder["seat_service"] and holder["process"]["uid"] == session["uid"]


def _runs(world: Json, name: str) -> bool:
    return any(one["name"] == name and one["active_state"] == "active" for one in world["services"])


def _sound_is_watched(gpus: Iterable[Json]) -> bool:
    """Tell whether the sound server has the sound of cards open, as it does unless it was told otherwise."""
    return any(holder["process"]["name"] in SOUND_SERVERS for gpu in gpus for holder in gpu["holders"])


def _plug(machine: SimulatedMachine, gpus: Iterable[Json]) -> None:
    """Plug in what hangs on the cards' USB ports; what the host used of it is told by the report, and not done here."""
    for gpu in gpus:
        controllers = [one["address"] for one in gpu["functions"] if int(one["pci_class"]) == hardware.USB]
        for place, one in enumerate(gpu.get("attached", ()) if controllers else (), 1):
            machine.usb.plug(machine.pci.devices[controllers[0]], Plugged(one["name"], port=str(place)))


def _hold(machine: SimulatedMachine, gpus: Iterable[Json]) -> None:
    """Start whoever else has a card open."""
    for gpu in gpus:
        device = machine.pci.devices[gpu["address"]]
        for holder in gpu["holders"]:
            process = holder["process"]
            if not holder["seat_service"] and not machine.processes.named(process["name"]):
                nodes = list(dict.fromkeys(_nodes(machine, device, holder["nodes"])))
                machine.processes.spawn(process["name"], uid=process["uid"], cgroup=process["cgroup"], opens=nodes)


def _nodes(machine: SimulatedMachine, device: PciDevice, named: Iterable[str]) -> Iterator[str]:
    """Yield the simulated nodes of a card that correspond to those of the real one: of the same kind."""
    slot = str(device.address).rpartition(".")[0]
    mine = [node.path for node in machine.tree.nodes() if f"/{slot}." in f"{node.device}."]
    for name in named:
        kind = re.sub(r"\d.*", "", name)
        yield from (path for path in mine if re.sub(r"\d.*", "", path) == kind)
        if name.startswith(("/dev/nvidiactl", "/dev/nvidia-")):
            yield name
