"""Whose desktop a card shows, from what programs have open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.world import Gpu, Holder, Process, World
from gpuhandoff.plan.display import drives_display, sessions_shown
from tests.support.worlds import ALICE, COMPOSITOR, DISPLAY_CLASS, function

CARD = PciAddress(0, 1, 0, 0)
GPU = Gpu(CARD, "NVIDIA GeForce RTX 4070", (function(CARD, DISPLAY_CLASS, "nvidia"),), cards=("/dev/dri/card1",))
OFFLOADED = ("/dev/dri/renderD129", "/dev/nvidia-modeset", "/dev/nvidia0", "/dev/nvidiactl")
"""What NVIDIA's GL and Vulkan open in every program, whichever card shows the picture."""


def held(name: str, *nodes: str) -> World:
    """Return the world with a program of alice's session that has these nodes of the card open."""
    process = Process(1200, 6000, name, 1000, COMPOSITOR.process.cgroup)
    return World("b", "6.12", (replace(GPU, holders=(Holder(process, nodes, session=ALICE.id),)),), sessions=(ALICE,))


@pytest.mark.parametrize(
    ("name", "nodes", "shows"),
    [
        ("kwin_wayland", ("/dev/dri/card1",), True),
        ("Xorg", ("/dev/fb0",), True),
        ("Xorg", OFFLOADED, True),
        ("X", OFFLOADED, True),
        ("game", OFFLOADED, False),
        ("kwin_wayland", OFFLOADED, False),
        ("Xwayland", OFFLOADED, False),
        ("wireplumber", ("/dev/snd/controlC1",), False),
    ],
)
def test_who_shows_a_picture_and_who_only_renders(name: str, nodes: tuple[str, ...], *, shows: bool) -> None:
    world = held(name, *nodes)
    assert sessions_shown(world, world.gpus[0]) == ((ALICE,) if shows else ())
    assert drives_display(world, world.gpus[0]) is shows
