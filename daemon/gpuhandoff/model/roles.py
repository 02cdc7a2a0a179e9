"""Programs that have a GPU open for others, and so are neither in the way nor to be ended."""

from __future__ import annotations

from collections.abc import Iterable

from gpuhandoff.model.world import Process

SEAT_SERVICES = frozenset({"systemd-logind", "elogind", "seatd"})
SOUND_SERVERS = frozenset({"pipewire", "wireplumber", "pulseaudio"})


def is_seat_service(process: Process) -> bool:
    """Tell PID 1 and logind, which hold a node on a session's behalf and let go with it; never signalled (kernel.md 11)."""
    return process.pid == 1 or process.name in SEAT_SERVICES


def follows_its_card(process: Process, nodes: Iterable[str]) -> bool:
    """Tell a sound server that watches the card: it closes the control node when the card goes (kernel.md 1.4).

    Ended, it would leave its user without sound; waited for, it would never let go.
    """
    return process.name in SOUND_SERVERS and all(node.startswith("/dev/snd/control") for node in nodes)
