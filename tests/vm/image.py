"""The disk of the test host: Debian 13 with a desktop, made once and kept by its inputs; and the emulator that runs it.

That is Debian 13's as well, the one with which the test host runs its own guests, whatever this machine has: QEMU before
8.1 now and then goes on with a translation of code that the kernel has patched meanwhile, and the kernel panics in int3.

Needs mmdebstrap, e2fsprogs (mke2fs -d fills a file system without mounting it) and qemu-utils.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SUITE = "trixie"
SIZE = "3G"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "polkitd", "udev", "kmod", "libpam-systemd", "procps"),
    *("linux-image-amd64", "initramfs-tools", "zstd", "qemu-guest-agent"),
    *("greetd", "weston"),
    *("strace", "qemu-system-x86", "seabios"),
    *("libvirt-daemon-system", "libvirt-clients", "busybox-static"),
    *("python3", "python3-dbus-next", "python3-pyudev", "python3-psutil", "python3-systemd", "pci.ids"),
)


LIBRARIES = "usr/lib/x86_64-linux-gnu"
EMULATOR = "usr/bin/qemu-system-x86_64"
FIRMWARE = ("usr/share/qemu", "usr/share/seabios")


@dataclass(frozen=True, slots=True)
class Emulator:
    """QEMU, run from where it lies with the libraries of its own Debian."""

    root: Path

    @property
    def command(self) -> tuple[str, ...]:
        """How it is started."""
        libraries = self.root / LIBRARIES
        loader = (str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(self.root / EMULATOR))
        return *loader, *(word for directory in FIRMWARE for word in ("-L", str(self.root / directory)))

    @property
    def environment(self) -> dict[str, str]:
        """Where it finds its modules."""
        return {**os.environ, "QEMU_MODULE_DIR": str(self.root / LIBRARIES / "qemu")}


@dataclass(frozen=True, slots=True)
class Image:
    """A disk, the kernel and initrd that boot it, and the emulator."""

    disk: Path
    kernel: Path
    initrd: Path
    emulator: Emulator


def image() -> Image:
    """Return the image, made now unless the same has been made before (about two minutes, two GiB)."""
    directory = _cache() / _key()
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _make(directory)
        (directory / "complete").touch()
    return Image(directory / "disk.qcow2", directory / "vmlinuz", directory / "initrd", Emulator(directory / "emulator"))


def _cache() -> Path:
    given = os.environ.get("GPUHANDOFF_VM_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "gpuhandoff-vm"


def _key() -> str:
    inputs = b"".join(path.read_bytes() for path in (HERE / "customize.sh", *sorted((HERE / "guest").iterdir())))
    return hashlib.sha256(repr((SUITE, SIZE, PACKAGES, LIBRARIES, EMULATOR, FIRMWARE)).encode() + inputs).hexdigest()[:16]


def _make(directory: Path) -> None:
    root = directory / "root"
    _run(
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Apt::Install-Recommends "false"',
        f'--customize-hook={HERE / "customize.sh"} "$1"',
        SUITE,
        str(root),
    )
    for name, link in (("vmlinuz", "vmlinuz"), ("initrd", "initrd.img")):
        shutil.copy(
            (root / link).resolve() if not (root / link).is_symlink() else root / os.readlink(root / link),
            directory / name,
        )
    for part in (EMULATOR, LIBRARIES, *FIRMWARE):
        target = directory / "emulator" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        _run("cp", "-a", str(root / part), str(target))
    raw = directory / "disk.raw"
    _run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(raw), SIZE)
    _run("qemu-img", "convert", "-O", "qcow2", str(raw), str(directory / "disk.qcow2"))
    raw.unlink()
    shutil.rmtree(root)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    print(image())  # noqa: T201
