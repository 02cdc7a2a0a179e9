"""Processes that keep a GPU open: waiting for them to let go, and ending them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Iterable

from gpuhandoff.host import Host, OpenNode
from gpuhandoff.model.roles import SEAT_SERVICES, follows_its_card, is_vital
from gpuhandoff.model.world import Process

FIRST_LOOK = 0.05
LONGEST_LOOK = 0.5
TERM_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
KILL_GRACE = 3.0
"""Seconds for a killed process to be gone."""

INDISPENSABLE = SEAT_SERVICES | {
    *("systemd", "dbus-daemon", "dbus-broker", "gpuhandoffd", "libvirtd", "virtqemud", "virtlogd", "pipewire"),
    *("wireplumber", "pulseaudio", "polkitd", "systemd-udevd"),
}
"""Never stopped: the handoff talks to them, or they would keep a device open that has to be let go (kernel.md 7)."""


def is_indispensable(process: Process) -> bool:
    """Tell what must not be paused while a GPU moves."""
    return process.pid == 1 or process.name in INDISPENSABLE


def follows(host: Host, one: OpenNode) -> bool:
    """Tell who lets go by itself with the card: a sound server that watches it, and can."""
    return follows_its_card(one.process, one.nodes) and not host.stands_still(one.process)


async def wait_free(
    host: Host, nodes: Collection[str], *, timeout: float, of: Callable[[OpenNode], bool] = lambda _: True
) -> tuple[OpenNode, ...]:
    """Wait until nobody that `of` accepts has any of the nodes open; return who still has after `timeout` seconds.

    The kernel has no event for a closing descriptor: looked for at growing intervals, at once when a holder ends.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    pause = FIRST_LOOK
    while True:
        holding = tuple(one for one in await host.processes.holding(nodes) if of(one))
        left = deadline - asyncio.get_running_loop().time()
        if not holding or left <= 0:
            return holding
        await host.processes.ended([one.process for one in holding], timeout=min(pause, left))
        pause = min(pause * 2, LONGEST_LOOK)


async def end(host: Host, processes: Iterable[Process]) -> list[Process]:
    """TERM, wait, KILL, wait; return those that are still there. What the machine cannot do without is left alone."""
    remaining = [process for process in processes if not is_vital(process)]
    for number, grace in ((signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, KILL_GRACE)):
        for process in remaining:
            host.processes.signal(process, number)
        if await host.processes.ended(remaining, timeout=grace):
            return []
        remaining = [process for process in remaining if host.processes.state(process) is not None]
    return remaining


def name_open(holding: Iterable[OpenNode], wanted: Callable[[OpenNode], bool] = lambda _: True) -> str:
    """Return who has what open, in words."""
    return ", ".join(f"{one.process.name} (pid {one.process.pid}) has {one.nodes[0]} open" for one in holding if wanted(one))
