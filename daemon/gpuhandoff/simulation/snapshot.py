"""The oracle: everything about the machine that a person could notice, as plain JSON that can be compared."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.simulation.functions import suspended
from gpuhandoff.simulation.processors import format_mask

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine
    from gpuhandoff.simulation.process import SimulatedProcess


def take_snapshot(machine: SimulatedMachine) -> dict[str, Any]:
    """Return the machine as it is. Two snapshots are equal when nobody could tell the difference.

    Left out is what is new at each start anyway: pids, session numbers, start times.
    """
    return {
        "functions": _functions(machine),
        "modules": {name: machine.modules.references(name) for name in sorted(machine.modules.loaded)},
        "framebuffers": machine.tree.attribute("/proc/fb").read(),  # type: ignore[misc]
        "consoles": _files(machine, "/sys/class/vtconsole", "name", "bind"),
        "nodes": sorted(node.path for node in machine.tree.nodes()),
        "connectors": _files(machine, "/sys/class/drm", "status", "enabled"),
        "usb": machine.usb.connected(),
        "lost": list(machine.disks.lost),
        "units": _units(machine),
        "sessions": _sessions(machine),
        "processes": _processes(machine),
        "inhibitors": sorted(f"{one.what} {one.who} {one.mode}" for one in machine.logind.inhibitors.values()),
        "memory": {
            "hugepages": machine.memory.pages,
            "transparent": dict(machine.memory.transparent),
        },
        "interrupts": {str(number): format_cpus(one.cpus) for number, one in sorted(machine.processors.interrupts.items())},
        "default_affinity": format_mask(machine.processors.default_affinity),
        "workqueues": format_mask(machine.processors.workqueue),
        "governors": {str(cpu): governor for cpu, governor in machine.processors.governors.items()},
        "frozen": machine.control_groups.frozen(),
        "pending": sorted(
            f"{one.operation.kind} {one.operation.target} {one.operation.detail}" for one in machine.operations.values()
        ),
    }


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Return what differs between two snapshots, one readable line each."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted({*before, *after})
            for line in differences(before.get(key), after.get(key), f"{where}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list):
        gone, new = Counter(map(str, before)), Counter(map(str, after))
        return [f"{where}: - {one}" for one in (gone - new).elements()] + [
            f"{where}: + {one}" for one in (new - gone).elements()
        ]
    return [] if before == after else [f"{where}: {before!r} -> {after!r}"]


def _functions(machine: SimulatedMachine) -> dict[str, Any]:
    return {
        address: {
            "driver": device.driver.name if device.driver else None,
            "linked": machine.kernel.link(f"{device.path}/driver"),
            "override": device.override,
            "control": device.control,
            "d3cold_allowed": device.d3cold_allowed,
            "suspended": suspended(machine, device),
            "windows": [size for _, size, _ in device.bars],
        }
        for address, device in machine.pci.devices.items()
    }


def _units(machine: SimulatedMachine) -> dict[str, Any]:
    return {
        name: {
            "state": unit.active_state,
            "allowed_cpus": format_cpus(unit.allowed_cpus),
            "effective_cpus": format_cpus(machine.units.effective_cpus(unit)),
            "frozen": unit.frozen,
        }
        for name, unit in sorted(machine.units.units.items())
        if unit.kind != "Scope"
    }


def _sessions(machine: SimulatedMachine) -> list[str]:
    return sorted(
        f"{one.login.user} {one.login.kind} {one.login.type} {one.state}" for one in machine.sessions.sessions.values()
    )


def _processes(machine: SimulatedMachine) -> list[str]:
    return sorted(_line(process) for process in machine.processes.running())


def _line(process: SimulatedProcess) -> str:
    nodes = " ".join(sorted({node.path for node in process.nodes}))
    return f"{process.name} uid={process.uid} {process.state} {nodes}".strip()


def _files(machine: SimulatedMachine, base: str, *names: str) -> dict[str, list[str]]:
    found = {}
    for entry in machine.kernel.entries(base):
        values = [
            machine.kernel.read(f"{base}/{entry}/{name}")
            for name in names
            if machine.kernel.exists(f"{base}/{entry}/{name}")
        ]
        if values:
            found[entry] = values
    return found
