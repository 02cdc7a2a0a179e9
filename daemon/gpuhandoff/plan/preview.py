"""What a person should know before saying yes: what ends, what does not come back, how it is undone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpuhandoff.model.plan import Plan
from gpuhandoff.model.request import HolderPolicy, Operation, Options
from gpuhandoff.model.world import Gpu, Holder, Session, World
from gpuhandoff.plan.display import belongs_to, drives_display, ends_with_display, sessions_shown
from gpuhandoff.plan.people import program_name
from gpuhandoff.plan.refusal import unsettled

UNDO: dict[str, str] = {
    "inhibit-sleep": "the machine may sleep again",
    "load-vfio": "vfio-pci is unloaded again, if it was not loaded before",
    "stop-display": "the display manager is started, if one ran; whoever logs in finds a new session",
    "stop-gpu-services": "they are started again",
    "settle-holders": "what was ended is not started again",
    "claim-functions": "the reservation and the power settings are put back",
    "unbind-consoles": "the console comes back with the driver",
    "unbind-framebuffers": "the driver shows the picture in its place; where there is none, the next boot does",
    "unload-driver": "the driver is loaded and takes the card",
    "resize-bars": "the memory windows are set back",
    "bind-vfio": "vfio-pci lets go of the card",
    "confine-host": "the host gets all CPUs back",
    "quiet-host": "they go on",
    "free-memory": "nothing has to be undone",
    "back-guest-memory": "the pages are given back",
}
"""By step, how it is undone, in words for a person."""

LOST = (
    "unsaved documents: programs are ended, some without asking",
    "the clipboard; Plasma 6.3 and later keeps its history",
    "Bluetooth audio: it is let go of with the session, and has to be connected again",
    "what was started from the desktop in the background (tmux, nohup), unless its user lingers",
)
"""What goes with a desktop that ends, beside its programs."""

_BACKGROUND = re.compile(
    r"(?:kwin|plasma|gnome-(?!terminal|text)|xdg-|dbus|gvfs|at-spi|evolution-|gsd-|ibus|kded|kglobal|systemd|\(sd-pam\)|pipewire"
    r"|wireplumber|pulse|xwayland|xorg|sddm|gdm|polkit|agent|goa-|tracker|baloo|akonadi|dconf|gjs|Hyprland|sway)",
    re.IGNORECASE,
)
"""Programs of a desktop itself, which nobody has opened."""
MOST = 12
"""Programs that are named."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a handoff costs, beyond its steps."""

    sessions: tuple[Session, ...] = ()
    """Those that end, of people."""
    programs: tuple[str, ...] = ()
    """Those that end, by the names that people call them."""
    more: int = 0
    """How many further ones."""
    lost: tuple[str, ...] = ()
    """What of theirs is known not to survive."""
    ended: tuple[Holder, ...] = ()
    """Programs that would be ended for having the card open, with consent."""


def preview(world: World, gpu: Gpu, plan: Plan) -> Preview:
    """Return what is lost. `world` should have been surveyed with processes: without, only holders are named."""
    ended = tuple(unsettled(world, gpu)) if any(step.name == "settle-holders" and step.costs for step in plan.steps) else ()
    if not drives_display(world, gpu):
        return Preview(ended=ended)
    sessions = tuple(session for session in sessions_shown(world, gpu) if session.kind == "user")
    if not sessions:
        return Preview(ended=ended)
    names = sorted(dict.fromkeys(_programs(world, gpu, sessions)), key=str.casefold)
    return Preview(sessions, tuple(names[:MOST]), max(len(names) - MOST, 0), LOST, ended)


def spare(gpu: Gpu, plan: Plan | None, options: Options, *, refuses: bool) -> dict[str, object]:
    """Return the consents among the options that are of no use now, as the options' fields without them.

    Without a plan everything is undone. `refuses`: whether the card's verdict does. What is asked of polkit goes by what
    was allowed, needed or not, since more may be needed by then (`authority/table.py`): a person should know that.
    """
    steps = {step.name: step for step in plan.steps} if plan is not None else {}
    lends = plan is not None and plan.operation is Operation.HANDOFF
    ends = lends and "settle-holders" in steps and bool(steps["settle-holders"].costs)
    found: dict[str, object] = {}
    if lends and options.stop_display and "stop-display" not in steps:
        found["stop_display"] = False
    if options.holders is HolderPolicy.TERMINATE and not (ends if lends else gpu.guest is not None):
        found["holders"] = HolderPolicy.REFUSE
    if lends and options.accept_risk and not refuses:
        found["accept_risk"] = False
    return found


def _programs(world: World, gpu: Gpu, sessions: Iterable[Session]) -> Iterable[str]:
    """Yield the programs of the sessions: what has the card open, and what else runs in them."""
    known = {holder.process.pid: holder for holder in gpu.holders if ends_with_display(world, gpu, holder)}
    for holder in [*known.values(), *(one for one in world.applications if one.process.pid not in known)]:
        if not any(belongs_to(holder, session) for session in sessions):
            continue
        if not _BACKGROUND.match(holder.process.name) and not holder.seat_service:
            yield program_name(holder)
