"""Resizable BAR: whether the card's memory windows can be as the guest wants them."""

from __future__ import annotations

from collections.abc import Iterator

from gpuhandoff.errors import UnsupportedError
from gpuhandoff.model.plan import PlannedStep
from gpuhandoff.model.request import Options
from gpuhandoff.model.world import Gpu, World

_MEBIBYTE = 20


def resize_bars(world: World, gpu: Gpu, options: Options) -> Iterator[PlannedStep]:
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
    if wanted and not world.may_resize:
        raise UnsupportedError(
            f"bars: the memory windows of {gpu.address} ({gpu.name}) cannot be resized, as gpuhandoffd was started without "
            "CAP_SYS_ADMIN, which newer kernels ask for. Its unit gives it that: `systemctl cat gpuhandoffd.service` shows "
            "what takes it away. With `leave` the card is handed off as it is."
        )
    if wanted:
        listed = ", ".join(f"{number} to {size >> _MEBIBYTE} MiB" for number, size in wanted)
        bars = [{"number": number, "bytes": size} for number, size in wanted]
        yield PlannedStep(
            "resize-bars", {"address": str(gpu.address), "bars": bars}, f"set memory window {listed} for the guest"
        )
