"""How the functions of our GPUs look in a domain's XML, for a hook that only compares text."""

from __future__ import annotations

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.world import World


def patterns(world: World) -> str:
    """Return fixed strings, one a line, one of which is in the XML of every domain that has a function of a GPU.

    libvirt never hands out what a person wrote, but its own form of it: this order, these quotes. The source of a hostdev
    has no type, unlike the guest's own addresses, which are the same numbers more often than not.
    """
    found = [_forms(function.address) for gpu in world.gpus for function in gpu.functions]
    return "".join(f"{line}\n" for lines in found for line in lines)


def _forms(address: PciAddress) -> tuple[str, str]:
    numbers = f"'0x{address.domain:04x}' bus='0x{address.bus:02x}' slot='0x{address.device:02x}'"
    line = f"<address domain={numbers} function='0x{address.function:x}'"
    return line, line.replace("'", '"')
