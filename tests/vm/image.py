"""The disk of the test host: Debian 13 with a desktop, made once and kept by its inputs.

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


@dataclass(frozen=True, slots=True)
class Image:
    """A disk, and the kernel and initrd that boot it."""

    disk: Path
    kernel: Path
    initrd: Path


def image() -> Image:
    """Return the image, made now unless the same has been made before (about two minutes, one GiB)."""
    directory = _cache() / _key()
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _make(directory)
        (directory / "complete").touch()
    return Image(directory / "disk.qcow2", directory / "vmlinuz", directory / "initrd")


def _cache() -> Path:
    given = os.environ.get("GPUHANDOFF_VM_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "gpuhandoff-vm"


def _key() -> str:
    inputs = b"".join(path.read_bytes() for path in (HERE / "customize.sh", *sorted((HERE / "guest").iterdir())))
    return hashlib.sha256(repr((SUITE, SIZE, PACKAGES)).encode() + inputs).hexdigest()[:16]


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
