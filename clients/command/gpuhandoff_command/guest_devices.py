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

_MACHINE = re.compile(r"(?:^|\s)--?(?:machine|M)[\s=\\]+(\S+)")
_AROUND = "\"';)"
"""What a shell's script may have around an argument."""
_EXPRESS = re.compile(r"(?:pc-)?(?:q35|virt)(?:-[\w.]+)?")


def places(program: Sequence[str]) -> int:
    """Return how often the command names the GPU."""
    return sum(word.count(PLACE) for word in program)


def with_gpu(program: Sequence[str], functions: Sequence[str]) -> list[str]:
    """Return the command with `{gpu}` replaced: by several arguments where it is one, by words where it is part of one."""
    devices = _devices(functions, express=_EXPRESS.fullmatch(_machine(program)) is not None)
    found: list[str] = []
    for word in program:
        if word == PLACE:
            found += devices
        else:
            found.append(word.replace(PLACE, " ".join(devices)))
    return found


def _machine(program: Sequence[str]) -> str:
    """Return the machine's type: what comes first and has no name, or `type=` wherever it is; of several the last one."""
    kind = ""
    for given in _MACHINE.findall(" ".join(program)):
        first, *others = given.strip(_AROUND).split(",")
        for option in (first if "=" in first else f"type={first}", *others):
            name, _, value = option.partition("=")
            kind = value.strip(_AROUND) if name == "type" else kind
    return kind


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
