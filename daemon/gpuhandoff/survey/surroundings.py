"""Who else binds GPUs to vfio-pci here: files of modprobe, driverctl, supergfxctl, initial ram disks. Reads, never runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from gpuhandoff.host import Host
from gpuhandoff.model.surroundings import Distribution, Family, Means, Rival, Surroundings

MODPROBE = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
DRIVERCTL = "/etc/driverctl.d"
SUPERGFXCTL = "/etc/supergfxd.conf"
INITRAMFS = ("/etc/initramfs-tools/modules", "/etc/mkinitcpio.conf")
INITRAMFS_PARTS = ("/etc/dracut.conf.d", "/etc/mkinitcpio.conf.d")
RELEASES = ("/etc/os-release", "/usr/lib/os-release")
OSTREE = "/run/ostree-booted"
MOST = 200
"""Files of one directory that are read."""

_FAMILIES = {
    **dict.fromkeys(("debian", "ubuntu", "linuxmint"), Family.DEBIAN),
    "pop": Family.POP,
    **dict.fromkeys(("fedora", "rhel", "centos"), Family.FEDORA),
    **dict.fromkeys(("arch", "archlinux", "manjaro", "cachyos", "endeavouros"), Family.ARCH),
    **dict.fromkeys(("suse", "opensuse", "opensuse-tumbleweed", "opensuse-leap"), Family.SUSE),
}
_IDS = re.compile(r"^\s*options\s+vfio[-_]pci\b.*?\bids=(\S+)")
_STUB_IDS = re.compile(r"(?:vfio[-_]pci|pci[-_]stub)\.ids=(\S+)")
_BLACKLIST = re.compile(
    r"^\s*(?:blacklist\s+|install\s+(?=\S+\s+(?:(?:/usr)?/bin/)?(?:true|false|:)\s*;?\s*(?:#|$)))"
    r"(nvidia[\w-]*|nouveau|amdgpu|radeon|i915|xe|snd[-_]hda[-_]intel)(?=\s|$)"
)
"""With any other command `install` says how a module is loaded: Debian's packages have nvidia-current loaded for nvidia."""
_EARLY = re.compile(r"\bvfio[-_]pci\b")


def surroundings(host: Host, boot_parameters: Iterable[str]) -> Surroundings:
    """Return what is set besides gpuhandoff."""
    rivals = [*_modprobe(host), *_command_line(boot_parameters), *_driverctl(host), *_supergfxctl(host), *_initramfs(host)]
    return Surroundings(_distribution(host), tuple(rivals))


def _modprobe(host: Host) -> Iterator[Rival]:
    seen: set[str] = set()
    for directory in MODPROBE:
        for name in host.kernel.entries(directory)[:MOST]:
            if not name.endswith(".conf") or name in seen:
                continue
            seen.add(name)  # a file of the same name further down does not count (modprobe.d(5))
            for line in _lines(host, f"{directory}/{name}"):
                if found := _IDS.match(line):
                    yield Rival(Means.MODPROBE, f"{directory}/{name}", line, _ids(found[1]))
                elif (found := _BLACKLIST.match(line)) and directory.startswith(("/etc", "/run")):
                    yield Rival(Means.BLACKLIST, f"{directory}/{name}", line, (found[1].replace("-", "_"),))


def _command_line(parameters: Iterable[str]) -> Iterator[Rival]:
    for word in parameters:
        if found := _STUB_IDS.fullmatch(word):
            yield Rival(Means.COMMAND_LINE, "/proc/cmdline", word, _ids(found[1]))


def _driverctl(host: Host) -> Iterator[Rival]:
    for name in host.kernel.entries(DRIVERCTL)[:MOST]:
        for line in _lines(host, f"{DRIVERCTL}/{name}"):
            yield Rival(Means.DRIVERCTL, f"{DRIVERCTL}/{name}", line, (name.removeprefix("pci-").lower(),))


def _supergfxctl(host: Host) -> Iterator[Rival]:
    try:
        settings = json.loads("\n".join(_lines(host, SUPERGFXCTL)) or "{}")
    except ValueError:
        return
    if isinstance(settings, dict) and (str(settings.get("mode")).lower() == "vfio" or settings.get("vfio_enable") is True):
        yield Rival(Means.SUPERGFXCTL, SUPERGFXCTL, f"mode {settings.get('mode')}")


def _initramfs(host: Host) -> Iterator[Rival]:
    paths = [*INITRAMFS, *(f"{part}/{name}" for part in INITRAMFS_PARTS for name in host.kernel.entries(part)[:MOST])]
    for path in paths:
        for line in _lines(host, path):
            if _EARLY.search(line):
                yield Rival(Means.INITRAMFS, path, line)


def _distribution(host: Host) -> Distribution:
    for path in RELEASES:
        said = dict(line.split("=", 1) for line in _lines(host, path) if "=" in line)
        words = [said.get("ID", ""), *said.get("ID_LIKE", "").split()]
        names = [word.strip("\"'").lower() for word in words]
        if said:
            family = next((_FAMILIES[name] for name in names if name in _FAMILIES), Family.OTHER)
            if "OSTREE_VERSION" in said or host.kernel.exists(OSTREE):
                family = Family.OSTREE if family is Family.FEDORA else Family.OTHER
            return Distribution(family, said.get("PRETTY_NAME", "").strip("\"'"))
    return Distribution()


def _ids(text: str) -> tuple[str, ...]:
    """Return `10de:2786` for each, without subsystem and class."""
    return tuple(":".join(one.lower().split(":")[:2]) for one in text.split(",") if ":" in one)


def _lines(host: Host, path: str) -> list[str]:
    """Return the lines of a file that are not comments; none where it cannot be read."""
    try:
        text = host.kernel.read(path)
    except (OSError, ValueError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
