"""Resizable BAR: whether the card's memory windows can be as the guest wants them."""

from __future__ import annotations

from collections.abc import Iterator

from gpuhandoff.errors import UnsupportedError
from gpuhandoff.model.plan import PlannedStep
from gpuhandoff.model.request import Options
from gpuhandoff.model.world import Gpu

_MEBIBYTE = 20


def resize_bars(gpu: Gpu, options: Options) -> Iterator[PlannedStep]:
    """Yield the step that sets windows to other sizes than they have, if any; raises UnsupportedError for impossible ones.

    What a card that slept can do is not known: then the kernel says so when it is asked.
    """
    found = {bar.number: bar for bar in gpu.bars}
    wanted = [(number, size) for number, size in options.bars if number not in found or found[number].size != size]
    for number, size in wanted:
        if number not in found:
            raise UnsupportedError(f"bars: {gpu.address} ({gpu.name}) has no memory window {number}.")
        possible = found[number].possible
        if size not in possible and not gpu.display.power.asleep:
            sizes = ", ".join(f"{one >> _MEBIBYTE}M" for one in possible)
            what = f"can have {sizes}" if possible else "cannot be resized"
            raise UnsupportedError(
                f"bars: window {number} of {gpu.address} ({gpu.name}) {what}, not {size >> _MEBIBYTE}M. Resizable BAR may "
                "have to be switched on in the firmware."
            )
    if wanted:
        listed = ", ".join(f"{number} to {size >> _MEBIBYTE} MiB" for number, size in wanted)
        bars = [{"number": number, "bytes": size} for number, size in wanted]
        yield PlannedStep(
            "resize-bars", {"address": str(gpu.address), "bars": bars}, f"set memory window {listed} for the guest"
        )
