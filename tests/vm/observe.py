"""Runs inside the test host: prints, as JSON, everything observable that a handoff could leave behind.

Also imported by what else runs inside and has to compare.
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess


def text(path: str) -> str:
    """Return a file's content, or why it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        return f"errno {error.errno}"


def link(path: str) -> str:
    """Return where a link points to."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def command(*words: str) -> str:
    """Return what a command prints."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def pci() -> dict[str, dict[str, str]]:
    """Every PCI function: driver, override, power."""
    found = {}
    for path in sorted(glob.glob("/sys/bus/pci/devices/*")):
        found[os.path.basename(path)] = {
            "driver": link(f"{path}/driver"),
            "override": text(f"{path}/driver_override"),
            "control": text(f"{path}/power/control"),
            "d3cold": text(f"{path}/d3cold_allowed"),
            "children": " ".join(sorted(os.listdir(f"{path}/drm"))) if os.path.isdir(f"{path}/drm") else "",
        }
    return found


def modules() -> dict[str, str]:
    """Loaded modules with their references and users."""
    found = {}
    for line in text("/proc/modules").splitlines():
        name, _, references, users, *_ = line.split()
        found[name] = f"{references} {','.join(sorted(user for user in users.split(',') if user))}"
    return found


def stopped() -> list[str]:
    """Names of stopped processes."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        fields = text(path)
        if re.search(r"\) [Tt] ", fields):
            found.append(fields.partition("(")[2].rpartition(")")[0])
    return sorted(found)


def inhibitors() -> list[str]:
    """Return what, why and how of gpuhandoff's inhibitors; who took one may have gone, and it is kept all the same."""
    lines = command("systemd-inhibit", "--list", "--no-legend", "--no-pager").splitlines()
    return sorted(line.split(maxsplit=5)[5] for line in lines if line.startswith("gpuhandoff "))


def shown(names: tuple[str, ...], *properties: str) -> dict[str, dict[str, str]]:
    """Return properties of units, by one question: each costs a program's start."""
    text = command("systemctl", "show", *(f"--property={one}" for one in properties), *names)
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.split("\n\n")]
    return dict(zip(names, blocks, strict=True))


UNITS = ("greetd.service", "display-manager.service", "systemd-logind.service", "dbus.service", "polkit.service")


def snapshot() -> dict[str, object]:
    """Everything."""
    slices = shown(("init.scope", "system.slice", "user.slice", "machine.slice"), "AllowedCPUs", "EffectiveCPUs")
    return {
        "pci": pci(),
        "modules": modules(),
        "consoles": {
            os.path.basename(p): text(f"{p}/name") + " " + text(f"{p}/bind") for p in glob.glob("/sys/class/vtconsole/*")
        },
        "fb": text("/proc/fb"),
        "dri": sorted(os.listdir("/dev/dri")) if os.path.isdir("/dev/dri") else [],
        "snd": sorted(os.listdir("/dev/snd")) if os.path.isdir("/dev/snd") else [],
        "vfio": sorted(os.listdir("/dev/vfio")) if os.path.isdir("/dev/vfio") else [],
        "connectors": {os.path.basename(p): text(f"{p}/status") for p in glob.glob("/sys/class/drm/card*-*")},
        "units": {unit: found["ActiveState"] for unit, found in shown(UNITS, "ActiveState").items()},
        "failed": command("systemctl", "list-units", "--failed", "--plain", "--no-legend"),
        "cpus": {one: found["AllowedCPUs"] for one, found in slices.items()},
        "effective": {one: found["EffectiveCPUs"] for one, found in slices.items()},
        "hugepages": {p: text(p) for p in glob.glob("/sys/kernel/mm/hugepages/*/nr_hugepages")},
        "thp": {
            name: text(f"/sys/kernel/mm/transparent_hugepage/{name}") for name in ("enabled", "defrag", "shmem_enabled")
        },
        "stopped": stopped(),
        "frozen": sorted(p for p in glob.glob("/sys/fs/cgroup/**/cgroup.freeze", recursive=True) if text(p) == "1"),
        "inhibitors": inhibitors(),
        "interrupts": text("/proc/irq/default_smp_affinity"),
        "workqueues": text("/sys/devices/virtual/workqueue/cpumask"),
        "journals": sorted({*os.listdir("/run/gpuhandoff")} - {"hook-patterns"}) if os.path.isdir("/run/gpuhandoff") else [],
    }


if __name__ == "__main__":
    print(json.dumps(snapshot()))  # noqa: T201
