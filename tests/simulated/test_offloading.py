"""A program that renders on a card whose picture is on another one: it is ended with consent, the desktop is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu
from tests.support.product import Product

RENDERING = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/dri/renderD129")
BOTH = {"stop-display": Variant("b", True), "holders": Variant("s", "terminate")}


async def offloading() -> SimulatedMachine:
    """Return the machine with two GPUs, where Firefox renders on the second and kwin has only the first open."""
    machine = await igpu_dgpu()
    (firefox,) = machine.processes.named("firefox")
    for path in RENDERING:
        node = machine.tree.node(path)
        assert node is not None
        machine.processes.hold(firefox, node)
    return machine


@in_virtual_time
async def test_the_desktop_stays_whatever_is_allowed(tmp_path: Path) -> None:
    product = await Product(await offloading(), tmp_path).start()
    steps = [step for step, *_ in await product.call("Plan", "ssa{sv}", GPU, "handoff", BOTH)]
    assert "stop-display" not in steps
    await product.call("Handoff", "sa{sv}", GPU, BOTH)
    assert product.machine.processes.named("firefox") == []
    assert product.machine.processes.named("kwin_wayland")
    await product.stop()


@in_virtual_time
async def test_it_is_the_program_that_is_named_and_its_end_that_is_asked_for(tmp_path: Path) -> None:
    product = await Product(await offloading(), tmp_path).start()
    for options in ({}, {"stop-display": Variant("b", True)}):
        with pytest.raises(RemoteError, match=r"in use by firefox .*holders=terminate"):
            await product.call("Handoff", "sa{sv}", GPU, options)
    assert product.machine.processes.named("firefox")
    await product.stop()
