"""What programs have a GPU open for. Whoever has it for others, or for its sound, is neither in the way nor to be ended."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpuhandoff.model.world import Process

SEAT_SERVICES = frozenset({"systemd-logind", "elogind", "seatd"})
VITAL_UNITS = frozenset(
    {
        *("dbus.service", "dbus-broker.service", "gpuhandoffd.service", "libvirtd.service", "polkit.service"),
        *("systemd-journald.service", "systemd-udevd.service"),
        *("virtqemud.service", "virtlockd.service", "virtlogd.service"),
        *(f"{name}.service" for name in SEAT_SERVICES),
    }
)
"""Ended, they would take the machine, or whoever asks for the handoff, along."""
_AROUND_THEM = frozenset({"-.slice", "init.scope", "machine.slice", "system.slice"})
_GUESTS = "machine-"
"""What the names of guests' own units begin with, below machine.slice."""
_SYSTEM = "/system.slice"
X_SERVERS = frozenset({"Xorg", "Xorg.bin", "X"})
_PICTURE = ("/dev/dri/card", "/dev/fb")
"""Nodes that only somebody who shows a picture opens; programs that render use /dev/dri/renderD*."""
_NVIDIA_MODESET = "/dev/nvidia-modeset"
SOUND_SERVERS = frozenset({"pipewire", "pipewire-pulse", "pipewire-media-", "wireplumber", "pulseaudio"})
"""By the kernel's name for the process, which is 15 letters long."""
_SOUND_UNIT = re.compile(
    r"(?:pipewire(?:-pulse|-media-session)?|wireplumber(?:@.+)?|pulseaudio)\.service"
    r"|app-.*(?:pipewire|wireplumber|pulseaudio).*@autostart\.service"
)
"""The second kind is what a desktop starts where the user's manager has no unit for sound."""
_UNIT_ITSELF = re.compile(
    r"(?:/system\.slice|/user\.slice/user-(?P<uid>\d+)\.slice/user@(?P=uid)\.service(?:/[^/]+\.slice)*)/(?P<unit>[^/]+)"
)
"""A unit of the system's or of a user's own manager, and no group below it, as a container has."""


def is_seat_service(process: Process) -> bool:
    """Tell PID 1 and logind, which hold a node on a session's behalf and let go with it; never signalled (kernel.md 11).

    By the unit: anybody can give a program this name, also one that runs as root (a link to su), and would be overlooked
    with the card in its hands.
    """
    if process.name in SEAT_SERVICES and not process.cgroup:  # where the kernel has no unified hierarchy
        return process.uid == 0
    return process.pid == 1 or (process.name in SEAT_SERVICES and _unit(process) == f"{process.name}.service")


def is_vital(process: Process) -> bool:
    """Tell what is never ended, whoever consents: others can make it hold a card, by sending it a descriptor."""
    return is_seat_service(process) or _unit(process) in VITAL_UNITS


def is_vital_unit(name: str) -> bool:
    """Tell a unit that is neither stopped nor frozen: a vital one, its sockets, what such units or guests are in."""
    stem, _, kind = name.rpartition(".")
    if kind == "socket":  # also systemd-udevd-control.socket; a service goes with the socket that it requires
        return any(f"{stem}-".startswith(f"{vital.removesuffix('.service')}-") for vital in VITAL_UNITS)
    return name in VITAL_UNITS or name in _AROUND_THEM or (kind in {"scope", "slice"} and stem.startswith(_GUESTS))


def _unit(process: Process) -> str:
    """Return the unit of the system that a process is in, empty for people's own: they cannot get into another one."""
    slice_, _, below = process.cgroup.removeprefix("/").partition("/")
    return below.partition("/")[0] if f"/{slice_}" == _SYSTEM else ""


def follows_its_card(process: Process, nodes: Iterable[str]) -> bool:
    """Tell a sound server that watches the card: it closes the control node when the card goes (kernel.md 1.4).

    Ended, it would leave its user without sound; waited for, it would never let go. By the unit: one in a container keeps
    the node for ever, as udev is not heard in its network namespace, and so may any program of that name. One that somebody
    has started by hand is not known either, and counts as a holder. `Host.stands_still` tells whether it can let go at all.
    """
    return _is_sound_server(process) and all(node.startswith("/dev/snd/control") for node in nodes)


def _is_sound_server(process: Process) -> bool:
    found = _UNIT_ITSELF.fullmatch(process.cgroup)
    if process.name not in SOUND_SERVERS or found is None or not _SOUND_UNIT.fullmatch(found["unit"]):
        return False
    return found["uid"] is None or int(found["uid"]) == process.uid


def shows_picture(name: str, nodes: Iterable[str]) -> bool:
    """Tell a compositor or X server, by its name and the nodes that it has open, from what only renders or plays sound.

    NVIDIA's GL and Vulkan open /dev/nvidia-modeset in every program that renders with them. Only NVIDIA's driver for Xorg
    shows a picture through that alone; a Wayland compositor needs the DRM node.
    """
    return any(node.startswith(_PICTURE) or (node == _NVIDIA_MODESET and name in X_SERVERS) for node in nodes)
