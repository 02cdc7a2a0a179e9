"""What a compositor needs, so that it leaves a card alone which shows nothing of its desktop."""

from __future__ import annotations

from collections.abc import Iterator

from gpuhandoff.doctor.finding import Finding, Severity
from gpuhandoff.model.world import Gpu, World
from gpuhandoff.plan.display import drives_display

_VARIABLES = {
    "kwin_wayland": ("KWin", "KWIN_DRM_DEVICES"),
    "Hyprland": ("Hyprland", "AQ_DRM_DEVICES"),
    "sway": ("sway", "WLR_DRM_DEVICES"),
    "labwc": ("labwc", "WLR_DRM_DEVICES"),
    "wayfire": ("Wayfire", "WLR_DRM_DEVICES"),
}
_MUTTER = ("gnome-shell", "mutter")
_OF_ITS_USER = "~/.config/environment.d/gpu.conf"
"""Read by systemd's user manager, which starts KWin; whom a login manager or a shell starts learns nothing of it."""
_OF_EVERY_LOGIN = "/etc/environment"
RULES = "/etc/udev/rules.d/61-gpuhandoff-desktop.rules"


def of_desktop(world: World) -> Iterator[Finding]:
    """Yield what keeps a card from being lent while the desktop, which is on another one, stays."""
    showing = next((gpu for gpu in world.gpus if drives_display(world, gpu) and _compositors(gpu)), None)
    for gpu in world.gpus:
        if showing is None or gpu == showing or gpu.guest is not None:
            continue
        for name in _compositors(gpu) & _compositors(showing):
            yield _finding(gpu, showing, name)


def _compositors(gpu: Gpu) -> set[str]:
    known = {*_VARIABLES, *_MUTTER}
    return {holder.process.name for holder in gpu.holders if holder.process.name in known}


def _finding(gpu: Gpu, showing: Gpu, name: str) -> Finding:
    if name in _MUTTER:
        what = "GNOME Shell"
        rule = f'SUBSYSTEM=="drm", KERNEL=="card*", KERNELS=="{gpu.address}", TAG+="mutter-device-ignore"'
        remedy = f"Put the line  {rule}  into {RULES}, then reboot."  # udev tags no card that is there already
    else:
        what, variable = _VARIABLES[name]
        rule = f'SUBSYSTEM=="drm", KERNEL=="card*", KERNELS=="{showing.address}", SYMLINK+="dri/desktop"'
        place = _OF_ITS_USER if name == "kwin_wayland" else _OF_EVERY_LOGIN
        remedy = f"Put the line  {rule}  into {RULES}, and the line  {variable}=/dev/dri/desktop  into {place}; then reboot."
    return Finding(
        Severity.WARNING,
        "compositor",
        f"{what} has {gpu.name} open, though the desktop is on {showing.name}: lending the card would end the desktop.",
        ", ".join(node for holder in gpu.holders if holder.process.name == name for node in holder.nodes),
        remedy,
        str(gpu.address),
    )
