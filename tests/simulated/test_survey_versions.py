"""Versions as upstream counts them, where distributions hide them."""

from __future__ import annotations

import pytest

from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.nvidia_driver import VERSION
from gpuhandoff.survey import versions

DEBIAN = "Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org) (gcc-12) #1 SMP Debian 6.1.192-2 (2026-10-01)"
UBUNTU = "Ubuntu 6.8.0-49.49-generic 6.8.12"


@pytest.mark.parametrize(
    ("release", "files", "expected"),
    [
        ("6.12.107+deb13-amd64", {}, "6.12.107"),
        ("6.14.2-zen1-1-zen", {}, "6.14.2"),
        ("7.2-rc3", {}, "7.2"),
        ("6.1.0-56-amd64", {"/proc/version": DEBIAN}, "6.1.192"),
        ("6.8.0-49-generic", {"/proc/version_signature": UBUNTU, "/proc/version": "Linux version 6.8.0-49"}, "6.8.12"),
        ("unheard of", {}, ""),
    ],
)
def test_the_upstream_version(release: str, files: dict[str, str], expected: str) -> None:
    async def look() -> str:
        machine = SimulatedMachine((), kernel_release=release)
        for path, text in files.items():
            machine.tree.text(path, f"{text}\n")
        return versions.kernel(simulated_host(machine, LoopbackBroker().connect()))

    assert run(look()) == expected


def test_nvidia_says_which_driver_it_is() -> None:
    async def look(text: str) -> bool:
        machine = SimulatedMachine(())
        if text:
            machine.tree.text(VERSION, text)
        return versions.nvidia_is_open(simulated_host(machine, LoopbackBroker().connect()))

    assert run(look("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.45.04  Release Build"))
    assert not run(look("NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.45.04  Sun Jan 11 2026"))
    assert not run(look(""))
