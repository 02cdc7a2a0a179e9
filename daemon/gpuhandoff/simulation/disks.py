"""Block devices that come and go, and what the host does with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

SCSI_MAJOR, MAPPER_MAJOR = 8, 253
BLOCK = "/sys/class/block"


class Disks:
    """Mounts, swap and what is made of block devices outlive these: that is how something gets lost."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._mounts: list[tuple[str, str, str, str]] = [("259:2", "/", "ext4", "/dev/nvme0n1p2")]
        """Number, mount point, kind and source."""
        self._swaps: list[str] = []
        self.lost: list[str] = []
        """What was in use when its disk vanished."""
        machine.tree.text("/proc/1/mountinfo", self._mountinfo)
        machine.tree.text("/proc/swaps", self._swapinfo)

    def appear(self, directory: str, names: Sequence[str]) -> None:
        """Show a disk and its partitions below their host adapter."""
        for place, name in enumerate(names):
            path = f"{directory}/block/{names[0]}" + (f"/{name}" if place else "")
            self._add(name, path, f"{SCSI_MAJOR}:{16 + place}")

    def vanish(self, names: Sequence[str]) -> None:
        """Take a disk away, whatever is done with it."""
        tree = self._machine.tree
        for name in names:
            number = self._number(name)
            self.lost += [
                f"{name} on {point}" for of, point, _, source in self._mounts if number == of or source == f"/dev/{name}"
            ]
            self.lost += [f"{name} as swap" for one in self._swaps if one == name]
            self.lost += [f"{name} in {one}" for one in tree.names(f"{BLOCK}/{name}/holders")]
        for name in names:
            tree.remove(f"{BLOCK}/{name}")

    def mount(self, name: str, point: str, kind: str = "ext4") -> None:
        """Mount one; the number that btrfs shows is that of no device (btrfs_getattr)."""
        several = kind == "btrfs"
        self._mounts.append(("0:45" if several else self._number(name), point, kind, f"/dev/{name}"))
        if several:
            self._machine.tree.link(f"/sys/fs/btrfs/5f2a/devices/{name}", self._machine.tree.resolve(f"{BLOCK}/{name}"))

    def unmount(self, point: str) -> None:
        """Unmount what is mounted there."""
        self._mounts = [one for one in self._mounts if one[1] != point]
        self._machine.tree.remove("/sys/fs/btrfs/5f2a")

    def swap(self, name: str, *, on: bool = True) -> None:
        """Use one as swap space, or no longer."""
        self._swaps = [*self._swaps, name] if on else [one for one in self._swaps if one != name]

    def map(self, name: str, mapper: str, called: str) -> None:
        """Have dm-crypt or LVM make another one of it."""
        path = f"/sys/devices/virtual/block/{mapper}"
        self._add(mapper, path, f"{MAPPER_MAJOR}:{mapper.removeprefix('dm-')}")
        self._machine.tree.text(f"{path}/dm/name", f"{called}\n")
        self._machine.tree.link(f"{self._machine.tree.resolve(f'{BLOCK}/{name}')}/holders/{mapper}", path)

    def _add(self, name: str, path: str, number: str) -> None:
        tree = self._machine.tree
        tree.text(f"{path}/dev", f"{number}\n")
        tree.directory(f"{path}/holders")
        tree.link(f"{BLOCK}/{name}", path)

    def _number(self, name: str) -> str:
        return self._machine.kernel.read(f"{BLOCK}/{name}/dev")

    def _mountinfo(self) -> str:
        return "".join(
            f"{30 + place} 1 {number} / {_escaped(point)} rw,relatime shared:{place} - {kind} {source} rw\n"
            for place, (number, point, kind, source) in enumerate(self._mounts, 1)
        )

    def _swapinfo(self) -> str:
        lines = [f"/dev/{name:36}partition\t8388604\t0\t-2\n" for name in self._swaps]
        return "".join(["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n", *lines])


def _escaped(path: str) -> str:
    return path.replace(" ", r"\040")
