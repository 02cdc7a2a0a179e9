"""Versions of the kernel and of NVIDIA's driver, as upstream counts them."""

from __future__ import annotations

import re

from gpuhandoff.host import Host

_UBUNTU = re.compile(r"Ubuntu \S+ (\d+\.\d+\.\d+)")
_DEBIAN = re.compile(r"\bDebian (\d+\.\d+(?:\.\d+)?)")
_PLAIN = re.compile(r"\d+\.\d+(?:\.\d+)?")


def kernel(host: Host) -> str:
    """Return the upstream version. Debian 12 and Ubuntu hide it in their release, and tell it elsewhere."""
    for path, pattern in (("/proc/version_signature", _UBUNTU), ("/proc/version", _DEBIAN)):
        found = pattern.search(_text(host, path))
        if found is not None:
            return found[1]
    found = _PLAIN.match(_text(host, "/proc/sys/kernel/osrelease"))
    return found[0] if found is not None else ""


def nvidia_is_open(host: Host) -> bool:
    """Tell NVIDIA's open kernel modules from the others."""
    return "Open Kernel Module" in _text(host, "/proc/driver/nvidia/version")


def _text(host: Host, path: str) -> str:
    try:
        return host.kernel.read(path)
    except OSError:
        return ""
