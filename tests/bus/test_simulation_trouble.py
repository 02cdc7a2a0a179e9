"""What can be made to go wrong on the machine of `gpuhandoffd --simulate`, for whoever tries a client on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gpuhandoff.messages import RemoteError
from tests.desktop.daemon import SimulatedDaemon, simulated_daemon
from tests.support.bus import private_bus

GPU = "0000:01:00.0"
UNBIND = "/snd_hda_intel/unbind"


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[SimulatedDaemon]:
    with private_bus() as bus:
        async with simulated_daemon(bus) as one:
            await one.start("igpu-dgpu")
            yield one


async def test_an_operation_hangs_until_it_is_healed(daemon: SimulatedDaemon) -> None:
    await daemon.simulate("Hold", "s", UNBIND)
    await daemon.move("Handoff", GPU)
    await daemon.until(GPU, "handing-off")
    assert await daemon.state(GPU) == "handing-off"
    await daemon.simulate("Heal")
    await daemon.until(GPU, "detached")


async def test_an_operation_fails_until_it_is_healed(daemon: SimulatedDaemon) -> None:
    await daemon.simulate("Refuse", "s", UNBIND)
    with pytest.raises(RemoteError, match="RolledBack"):
        await daemon.move("Handoff", GPU, wait=True)
    await daemon.simulate("Heal")
    await daemon.move("Handoff", GPU, wait=True)
    assert await daemon.state(GPU) == "detached"


async def test_a_program_has_it_open_until_it_is_healed(daemon: SimulatedDaemon) -> None:
    await daemon.simulate("Open", "sus", "firefox", 1000, "/dev/nvidia0")
    with pytest.raises(RemoteError, match=r"InUse.*[Ff]irefox"):
        await daemon.move("Handoff", GPU, wait=True)
    await daemon.simulate("Heal")
    await daemon.move("Handoff", GPU, wait=True)


async def test_a_latecomer_makes_it_stuck_until_it_is_healed(daemon: SimulatedDaemon) -> None:
    await daemon.simulate("OpenBefore", "suss", "arecord", 1000, "/dev/snd/controlC1", UNBIND)
    await daemon.move("Handoff", GPU)
    await daemon.until(GPU, "stuck")
    await daemon.simulate("Heal")
    await daemon.until(GPU, "host")
