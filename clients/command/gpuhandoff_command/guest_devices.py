"""`{gpu}` in the command of `gpuhandoff run`: QEMU's arguments for all functions of the GPU, as one device of the guest."""

from __future__ import annotations

import re
from collections.abc import Sequence

PLACE = "{gpu}"
PORT = "gpuhandoff"
"""Name of the root port that the card sits behind in the guest."""
CHASSIS = 251
"""Of that port; another port of the same chassis and slot would be refused, and people count from 0."""
PLAIN_SLOT = "1e"
"""On a machine without PCI Express; QEMU fills the bus from below."""

_EXPRESS = re.compile(r"(?:^|\s)--?(?:machine|M)[\s=]+(?:type=)?(?:pc-)?(?:q35|virt)\b")


def places(program: Sequence[str]) -> int:
    """Return how often the command names the GPU."""
    return sum(word.count(PLACE) for word in program)


def with_gpu(program: Sequence[str], functions: Sequence[str]) -> list[str]:
    """Return the command with `{gpu}` replaced: by several arguments where it is one, by words where it is part of one."""
    devices = _devices(functions, express=_EXPRESS.search(" ".join(program)) is not None)
    found: list[str] = []
    for word in program:
        if word == PLACE:
            found += devices
        else:
            found.append(word.replace(PLACE, " ".join(devices)))
    return found


def _devices(functions: Sequence[str], *, express: bool) -> list[str]:
    """All functions share a slot, as drivers expect; the numbers stay where there is a function 0, which a slot needs."""
    found = ["-device", f"pcie-root-port,id={PORT},chassis={CHASSIS}"] if express else []
    bus, slot = (PORT, "00") if express else ("pci.0", PLAIN_SLOT)
    ascending = sorted(functions)
    keep = ascending[0].endswith(".0")
    for index, address in enumerate(ascending):
        number = address.rpartition(".")[2] if keep else str(index)
        several = ",multifunction=on" if index == 0 and len(ascending) > 1 else ""
        found += ["-device", f"vfio-pci,host={address},bus={bus},addr={slot}.{number}{several}"]
    return found
