"""What the daemon knows of the GPUs while it looks at the machine and others move them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gpuhandoff.messages import Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import hang
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.sessions import Login
from tests.support.product import Product

GPU, AUDIO = "0000:01:00.0", "0000:01:00.1"
PCI = "/sys/bus/pci"


def _announced(one: Product) -> list[tuple[str, str, str]]:
    found = [signal.body for signal in one.signals if signal.member == "DriverChanged"]
    return [(str(function), str(old), str(new)) for function, old, new in found]


@in_virtual_time
async def test_a_look_that_began_before_a_move_does_not_take_it_back(tmp_path: Path) -> None:
    """A look takes seconds on a busy machine; what it read first is old when it ends (seen on the real kernel)."""
    one = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
    kernel, answers = one.machine.kernel, asyncio.Event()
    slow = one.machine.faults.set(hang(answers), kind="call", target="ListSessions")
    await kernel.write(f"{PCI}/drivers/snd_hda_intel/unbind", AUDIO)
    await asyncio.sleep(1)
    assert slow.seen == 1  # a look has read the drivers, and waits for the sessions
    await kernel.write(f"{PCI}/drivers/nvidia/unbind", GPU)
    await asyncio.sleep(1)
    answers.set()
    await asyncio.sleep(10)
    assert one.states() == ["foreign"]
    await kernel.write(f"{PCI}/drivers_probe", GPU)
    await kernel.write(f"{PCI}/drivers_probe", AUDIO)
    await asyncio.sleep(10)
    assert one.states() == ["foreign", "host"]
    assert _announced(one) == [
        (AUDIO, "snd_hda_intel", ""),
        (GPU, "nvidia", ""),
        (GPU, "", "nvidia"),
        (AUDIO, "", "snd_hda_intel"),
    ]
    await one.stop()


@in_virtual_time
async def test_what_moves_while_a_daemon_looks_for_the_first_time_is_seen(tmp_path: Path) -> None:
    """At boot udev is binding drivers just then."""
    one, answers = Product(await SCENARIOS["igpu-dgpu"](), tmp_path), asyncio.Event()
    one.machine.faults.set(hang(answers), kind="call", target="ListSessions")
    starting = asyncio.create_task(one.start())
    await asyncio.sleep(1)
    await one.machine.kernel.write(f"{PCI}/drivers/snd_hda_intel/unbind", AUDIO)
    await asyncio.sleep(1)
    answers.set()
    await starting
    await asyncio.sleep(10)
    assert one.daemon is not None
    (card,) = [gpu for gpu in one.daemon.fleet.world.gpus if str(gpu.address) == GPU]
    assert [function.driver for function in card.functions] == ["nvidia", None]
    await one.stop()


@in_virtual_time
async def test_who_logs_in_during_a_job_is_not_forgotten_at_its_end(tmp_path: Path) -> None:
    one = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
    await one.handoff(GPU)
    goes_on = asyncio.Event()
    one.machine.faults.set(hang(goes_on), target="/vfio-pci/unbind")
    reclaiming = asyncio.create_task(one.reclaim(GPU))
    await asyncio.sleep(5)
    manager = one.machine.units.find("display-manager.service")
    assert manager is not None
    assert manager.main is not None
    await one.machine.sessions.open(Login("bob", 1001, "kwin_wayland", ()), manager.main, ())
    await one.call("Holders", "s", GPU)  # a whole look, in the middle
    goes_on.set()
    await reclaiming
    assert one.daemon is not None
    assert "bob" in {session.user for session in one.daemon.fleet.world.sessions}
    await one.stop()


@in_virtual_time
async def test_nothing_is_said_to_move_that_does_not(tmp_path: Path) -> None:
    one = await Product(await SCENARIOS["igpu-dgpu"](), tmp_path).start()
    await one.call("Handoff", "sa{sv}", GPU, {"dry-run": Variant("b", value=True)})
    assert one.states() == []
    await one.handoff(GPU)
    one.machine.start_guest(GPU)
    await asyncio.sleep(1)
    assert one.states() == ["handing-off", "detached", "guest"]
    one.kill()
    await one.start_daemon()
    await asyncio.sleep(1)
    assert one.states() == ["handing-off", "detached", "guest"]  # taken over, where it is
    await one.stop()
