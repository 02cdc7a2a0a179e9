"""What kind of machine this is for somebody who lends GPUs: what stays on the screen when which one goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gpuhandoff.model.world import Gpu, World
from gpuhandoff.plan.display import drives_display, sessions_shown
from gpuhandoff.verdict.rules import AMD_PROCESSOR, family_of

INTEL = 0x8086
_INTEL_SLOT = (0, 0, 2)
"""Where the graphics of an Intel processor always are: domain, bus, device."""


class LayoutKind(StrEnum):
    """How many GPUs, and which of them shows the picture."""

    SINGLE = "single"
    HYBRID = "hybrid"
    """The processor's graphics show the picture."""
    MULTI = "multi"
    HEADLESS = "headless"


@dataclass(frozen=True, slots=True)
class Layout:
    """The kind of machine, and why it is taken for that."""

    kind: LayoutKind
    reason: str


def is_integrated(gpu: Gpu) -> bool:
    """Tell the graphics of a processor from a card."""
    display, address = gpu.display, gpu.address
    if display.vendor == INTEL:
        return (address.domain, address.bus, address.device) == _INTEL_SLOT
    return family_of(display.vendor, display.device) == AMD_PROCESSOR


def layout_of(world: World) -> Layout:
    """Return what kind of machine this is now. What shows the picture is seen, not guessed from what was plugged where."""
    if not world.gpus:
        return Layout(LayoutKind.HEADLESS, "There is no GPU.")
    showing = showing_now(world)
    if not showing and not _has_desktop(world):
        return Layout(LayoutKind.HEADLESS, "No screen is connected, and nobody shows a desktop.")
    if len(world.gpus) == 1:
        return Layout(LayoutKind.SINGLE, f"{_called(world.gpus[0])} is the only GPU: whoever gets it gets the screen.")
    integrated = [gpu for gpu in world.gpus if is_integrated(gpu)]
    if integrated and showing and all(gpu in integrated for gpu in showing):
        others = [gpu for gpu in world.gpus if gpu not in integrated]
        held = any(drives_display(world, gpu) for gpu in others)
        free = "could be lent while the desktop goes on, if that did not have it open"
        if not held:
            free = "can be lent while the desktop goes on"
        return Layout(
            LayoutKind.HYBRID, f"The processor's graphics, {_named(showing)}, show the picture; {_named(others)} {free}."
        )
    if integrated and showing:
        return Layout(
            LayoutKind.MULTI,
            f"The picture comes from {_named(showing)}, not from the processor's graphics. With the screen plugged into the "
            "mainboard, the desktop could stay.",
        )
    return Layout(LayoutKind.MULTI, f"There are {len(world.gpus)} GPUs; the picture comes from {_named(showing) or 'none'}.")


def showing_now(world: World) -> list[Gpu]:
    """Return the GPUs from which a picture comes.

    Of those with the desktop the ones with a screen, as a compositor opens cards that show nothing, too; else those with a
    screen or the text console.
    """
    desktop = [gpu for gpu in world.gpus if drives_display(world, gpu)]
    if desktop:
        return [gpu for gpu in desktop if gpu.connected] or desktop
    return [gpu for gpu in world.gpus if gpu.connected or any(console.bound for console in gpu.consoles)]


def why_desktop_stays(world: World, gpu: Gpu) -> str:
    """Return in a sentence whether the desktop survives a handoff of this GPU, and why."""
    showing = showing_now(world)
    if drives_display(world, gpu) and gpu not in showing:
        return (
            f"It ends, as it has this card open, though its picture comes from {_named(showing)}. `gpuhandoff doctor` says "
            "how it leaves the card alone."
        )
    if drives_display(world, gpu):
        users = sorted({session.user for session in sessions_shown(world, gpu) if session.kind == "user"})
        return f"It ends: this card shows it{' to ' + ', '.join(users) if users else ''}."
    if any(drives_display(world, one) for one in showing):
        return f"It stays: it is on {_named(showing)}."
    return "There is none that could end."


def _has_desktop(world: World) -> bool:
    manager = world.display_manager
    return any(session.is_graphical for session in world.sessions) or (manager is not None and manager.is_active)


def _named(gpus: list[Gpu]) -> str:
    return ", ".join(_called(gpu) for gpu in gpus)


def _called(gpu: Gpu) -> str:
    return f"{gpu.address} ({gpu.name})"
