"""What a process is to a person: Firefox, in your session."""

from __future__ import annotations

from gpuhandoff.model.world import Holder, World

_KNOWN = {
    "Xorg": "the X server",
    "Xwayland": "X programs (Xwayland)",
    "kwin_wayland": "the desktop (KWin)",
    "kwin_x11": "the desktop (KWin)",
    "plasmashell": "the desktop (Plasma)",
    "gnome-shell": "the desktop (GNOME Shell)",
    "Hyprland": "the desktop (Hyprland)",
    "sway": "the desktop (sway)",
    "org_kde_powerdevil": "the screens' brightness (Powerdevil)",
    "nvidia-persistenced": "NVIDIA's persistence daemon",
    "nvidia-powerd": "NVIDIA's power daemon",
    "systemd-logind": "logind, on a desktop's behalf",
    "systemd": "the service manager, on a desktop's behalf",
    "wireplumber": "the sound server (WirePlumber)",
    "pipewire": "the sound server (PipeWire)",
    "pulseaudio": "the sound server (PulseAudio)",
    "ollama": "Ollama",
    "firefox": "Firefox",
    "firefox-bin": "Firefox",
    "chrome": "Chrome",
    "chromium": "Chromium",
    "steam": "Steam",
    "obs": "OBS Studio",
    "blender": "Blender",
    "code": "Visual Studio Code",
    "nvtop": "the monitor nvtop",
    "nvidia-smi": "the monitor nvidia-smi",
}
"""By the kernel's name for the process."""


def program_name(holder: Holder) -> str:
    """Return what a person calls the program: by its process, else by its application's id, else as the kernel does."""
    known = _KNOWN.get(holder.process.name)
    if known is not None:
        return known
    if holder.app:
        last = holder.app.removesuffix(".desktop").rpartition(".")[2]
        return last[:1].upper() + last[1:]
    return holder.process.name


def describe(world: World, holder: Holder, asker: int | None = None) -> str:
    """Return who it is and whose: `Firefox, in your session`. `asker` is the uid of whoever reads it, None for nobody."""
    return f"{program_name(holder)}{_whose(world, holder, asker)}"


def _whose(world: World, holder: Holder, asker: int | None) -> str:
    if holder.container:
        return f", in the container {holder.container}"
    uid = holder.process.uid
    if holder.session or f"/user-{uid}.slice/" in f"{holder.process.cgroup}/":
        return ", in your session" if uid == asker else f", in the session of {_user(world, holder)}"
    if holder.unit.endswith(".service"):
        return f", the service {holder.unit.removesuffix('.service')}"
    return f", of {_user(world, holder)}" if uid else ""


def _user(world: World, holder: Holder) -> str:
    uid = holder.process.uid
    return holder.user or next((one.user for one in world.sessions if one.uid == uid), "") or f"user {uid}"
