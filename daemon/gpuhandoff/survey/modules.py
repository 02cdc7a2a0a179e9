"""Kernel modules: which are loaded, and which could be loaded again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from gpuhandoff.host import Host
from gpuhandoff.model.kernel import Module

WANTED = frozenset({"vfio_pci", "vfio_iommu_type1"})
_FILE = re.compile(r"^(?:[^:\n]*/)?([^/:.\n]+)\.ko", re.MULTILINE)
_FLAVOURED = re.compile(r"nvidia_(?:current|tesla|legacy)(?:_\w+?)??(_drm|_modeset|_uvm|_peermem|)")
"""Debian installs NVIDIA's modules once for each series of driver: `nvidia-current-drm.ko` has the module nvidia_drm in it,
and lines of modprobe.d have modprobe load the one when it is asked for the other."""


@dataclass(slots=True)
class _List:
    """What is known of a file that lists modules: which were looked for in it, and which of them it has."""

    version: object
    asked: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)


_lists: dict[str, _List] = {}


def loaded(host: Host) -> tuple[Module, ...]:
    """Return what /proc/modules lists: name, size, references, users, ... A kernel that loads none has no such file."""
    found = []
    if not host.kernel.exists("/proc/modules"):
        return ()
    for line in host.kernel.read("/proc/modules").splitlines():
        name, _, references, users, *_ = line.split()
        found.append(Module(name, int(references), tuple(user for user in users.split(",") if user not in {"", "-"})))
    return tuple(found)


def parameter(host: Host, path: str) -> str:
    """Return a module's version or parameter, empty when it has none."""
    try:
        return host.kernel.read(path).strip()
    except OSError:
        return ""


def available(host: Host, present: Sequence[Module]) -> frozenset[str]:
    """Return those modules, of what vfio needs and of all that are loaded, that have a file for the running kernel.

    An upgrade may remove the lists of a kernel while it runs, and DKMS writes them anew.
    """
    release = host.kernel.read("/proc/sys/kernel/osrelease").strip()
    directory = f"/lib/modules/{release}"
    wanted = {*WANTED, *(module.name for module in present)}
    if not host.kernel.exists(f"{directory}/modules.dep"):
        return frozenset(name for name in WANTED if host.kernel.exists(f"/sys/module/{name}"))
    return frozenset(_among(host, f"{directory}/modules.dep", wanted) | _among(host, f"{directory}/modules.builtin", wanted))


def builtin(host: Host, among: frozenset[str]) -> frozenset[str]:
    """Return those of some available modules that are a part of the running kernel."""
    release = host.kernel.read("/proc/sys/kernel/osrelease").strip()
    return frozenset(_among(host, f"/lib/modules/{release}/modules.builtin", among))


def _among(host: Host, path: str, wanted: AbstractSet[str]) -> AbstractSet[str]:
    """Return those of the modules that a list of paths has, such as `kernel/drivers/vfio/pci/vfio-pci.ko.xz: ...`.

    It is a megabyte, and every move loads and removes modules: read again only when it has changed, or when something is
    wanted that was never looked for.
    """
    version = host.kernel.version(path)
    known = _lists.get(path)
    if known is None or known.version != version:
        known = _lists[path] = _List(version)
    new = wanted - known.asked
    if new:
        known.asked |= new
        try:
            text = host.kernel.read(path)
        except OSError:
            text = ""
        for place in _FILE.finditer(text):
            name = _module_in(place[1])
            if name in new:
                known.found.add(name)
    return wanted & known.found


def _module_in(file: str) -> str:
    """Return the name of the module that is in a file, of which the name is told without its ending."""
    name = file.replace("-", "_")
    flavoured = _FLAVOURED.fullmatch(name)
    return f"nvidia{flavoured[1]}" if flavoured else name
