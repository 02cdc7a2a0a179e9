"""Kernel modules: which are loaded, and which could be loaded again."""

from __future__ import annotations

from collections.abc import Sequence

from gpuhandoff.host import Host
from gpuhandoff.model.world import Module

WANTED = frozenset({"vfio_pci", "vfio_iommu_type1"})
_cache: dict[tuple[str, frozenset[str]], frozenset[str]] = {}


def loaded(host: Host) -> tuple[Module, ...]:
    """Return what /proc/modules lists: name, size, references, users, ..."""
    found = []
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

    The lists of a kernel do not change while it runs, except that an upgrade may remove them: looked at anew each time,
    and remembered by their directory's content.
    """
    release = host.kernel.read("/proc/sys/kernel/osrelease").strip()
    directory = f"/lib/modules/{release}"
    wanted = frozenset({*WANTED, *(module.name for module in present)})
    if not host.kernel.exists(f"{directory}/modules.dep"):
        return frozenset(name for name in WANTED if host.kernel.exists(f"/sys/module/{name}"))
    key = (directory, wanted)
    if key not in _cache:
        _cache.clear()
        _cache[key] = wanted & (_names(host, f"{directory}/modules.dep") | _names(host, f"{directory}/modules.builtin"))
    return _cache[key]


def builtin(host: Host, among: frozenset[str]) -> frozenset[str]:
    """Return those of some available modules that are a part of the running kernel."""
    release = host.kernel.read("/proc/sys/kernel/osrelease").strip()
    key = (f"/lib/modules/{release}/modules.builtin", among)
    if key not in _cache:
        _cache[key] = among & _names(host, key[0])
    return _cache[key]


def _names(host: Host, path: str) -> set[str]:
    """Return the module names of a list of paths such as `kernel/drivers/vfio/pci/vfio-pci.ko.xz: ...`."""
    try:
        text = host.kernel.read(path)
    except OSError:
        return set()
    files = (line.partition(":")[0].rpartition("/")[2] for line in text.splitlines())
    return {name.partition(".")[0].replace("-", "_") for name in files}
