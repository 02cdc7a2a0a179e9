"""Which block devices below some devices the host uses: mounted, swap, or a part of something else."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from gpuhandoff.host import Host
from gpuhandoff.model.hardware import DiskUse, Usage

BLOCK = "/sys/class/block"
MOUNTS = "/proc/1/mountinfo"
"""The machine's own: the daemon has a mount namespace to itself."""
SWAPS = "/proc/swaps"
BTRFS = "/sys/fs/btrfs"
_OCTAL = re.compile(r"\\([0-7]{3})")
_NUMBER, _POINT = 2, 4
"""Fields of mountinfo (proc_pid_mountinfo(5))."""


class Disks:
    """The block devices below some devices' physical directories in sysfs, partitions too; read when it is made."""

    def __init__(self, host: Host, places: Sequence[str]) -> None:
        self._host = host
        self._below: dict[str, list[str]] = {place: [] for place in places}
        for name in host.kernel.entries(BLOCK):
            path = host.kernel.resolve(f"{BLOCK}/{name}")
            above = [place for place in places if path.startswith(f"{place}/")]
            if above:
                self._below[max(above, key=len)].append(name)
        used = any(self._below.values())
        self._mounts = list(_mounts(host)) if used else []
        self._swaps = [_plain(line.split()[0]) for line in _lines(host, SWAPS)[1:] if line.split()] if used else []

    def uses(self, place: str) -> tuple[DiskUse, ...]:
        """Return what the host uses of the block devices of a device."""
        return tuple(DiskUse(name, usage, where) for name in self._below[place] for usage, where in self._of(name))

    def _of(self, name: str) -> Iterator[tuple[Usage, str]]:
        """Yield how one is used; of what it is a part, LVM, dm-crypt or md, how that is."""
        kernel = self._host.kernel
        number, nodes = self._read(name, "dev"), {f"/dev/{name}", f"/dev/mapper/{self._read(name, 'dm/name')}"}
        found = [
            *((Usage.MOUNTED, point) for of, point, source in self._mounts if of == number or nodes.intersection(source)),
            *((Usage.SWAP, one) for one in self._swaps if one in nodes),
        ]
        parts = [
            f"a btrfs file system ({one})" for one in kernel.entries(BTRFS) if kernel.exists(f"{BTRFS}/{one}/devices/{name}")
        ]
        if parts and not found:  # one of several devices: mountinfo names one of them, by no number of any
            found = [(Usage.PART, parts[0])]
        yield from found
        for holder in kernel.entries(f"{BLOCK}/{name}/holders"):
            called = self._read(holder, "dm/name")
            yield from list(self._of(holder)) or [(Usage.PART, f"{holder} ({called})" if called else holder)]

    def _read(self, name: str, attribute: str) -> str:
        with contextlib.suppress(OSError):
            return self._host.kernel.read(f"{BLOCK}/{name}/{attribute}").strip()
        return ""


def _mounts(host: Host) -> Iterator[tuple[str, str, list[str]]]:
    """Yield device number, mount point and devices; a file system of several devices has a number that is none of theirs."""
    for line in _lines(host, MOUNTS):
        before, _, after = line.partition(" - ")
        fields, behind = before.split(), after.split()
        if len(fields) > _POINT and len(behind) > 1:
            yield fields[_NUMBER], _plain(fields[_POINT]), _plain(behind[1]).split(":")  # bcachefs names all of them


def _lines(host: Host, path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):  # a kernel without swap
        return host.kernel.read(path).splitlines()
    return []


def _plain(text: str) -> str:
    """Return a path without the kernel's escapes, and without orders to a terminal: whoever mounts has named it."""
    decoded = _OCTAL.sub(lambda code: chr(int(code[1], 8)), text)
    return "".join(letter if letter.isprintable() else "?" for letter in decoded)
