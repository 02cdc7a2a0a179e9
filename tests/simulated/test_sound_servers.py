"""A sound server lets go of a card that goes, if it is one, hears of it, and can: else the unbind would wait for ever."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuhandoff.errors import InUseError
from gpuhandoff.host.door import OverdueError
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.roles import follows_its_card
from gpuhandoff.model.world import Process
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.faults import Perform
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.process import SimulatedProcess
from gpuhandoff.simulation.scenarios import EVERY_SOUND, igpu_dgpu
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product
from tests.support.step_cases import settle
from tests.support.steps import StepBench

GPU, AUDIO = "0000:01:00.0", "0000:01:00.1"
CONTROL = "/dev/snd/controlC1"
UNBIND = "/sys/bus/pci/drivers/snd_hda_intel/unbind"
MANAGER = "/user.slice/user-1000.slice/user@1000.service"
GREETER = "/user.slice/user-60578.slice/user@60578.service"
KNOWN = [
    ("wireplumber", 1000, f"{MANAGER}/session.slice/wireplumber.service"),
    ("wireplumber", 1000, f"{MANAGER}/app.slice/app-wireplumber.slice/wireplumber@policy.service"),
    ("pipewire", 1000, f"{MANAGER}/session.slice/pipewire.service"),
    ("pipewire-pulse", 1000, f"{MANAGER}/session.slice/pipewire-pulse.service"),
    ("pipewire-media-", 1000, f"{MANAGER}/session.slice/pipewire-media-session.service"),
    ("pipewire-media-", 1000, f"{MANAGER}/pipewire.service"),  # of the first versions, a child of pipewire's
    ("pulseaudio", 1000, f"{MANAGER}/session.slice/pulseaudio.service"),
    ("pulseaudio", 1000, f"{MANAGER}/pulseaudio.service"),  # before version 15
    ("pulseaudio", 1000, f"{MANAGER}/app.slice/app-pulseaudio@autostart.service"),
    ("wireplumber", 1000, f"{MANAGER}/app.slice/app-gentoo\\x2dpipewire\\x2dlauncher@autostart.service"),
    ("wireplumber", 60578, f"{GREETER}/session.slice/wireplumber.service"),  # GDM's
    ("pulseaudio", 112, "/user.slice/user-112.slice/user@112.service/session.slice/pulseaudio.service"),  # LightDM's
    ("pulseaudio", 116, "/system.slice/pulseaudio.service"),
]
UNKNOWN = [
    ("pipewire", 1000, "/user.slice/user-1000.slice/session-9.scope"),
    ("pipewire", 1000, ""),
    ("pipewire", 1000, f"{MANAGER}/app.slice/app-gnome-pipewire-4711.scope"),
    ("pipewire", 1000, f"{MANAGER}/app.slice/dj.service"),
    ("dj", 1000, f"{MANAGER}/session.slice/pipewire.service"),
    ("pipewire", 1001, f"{MANAGER}/session.slice/pipewire.service"),
    ("pipewire", 1000, f"{MANAGER}/session.slice/pipewire.service/libpod-payload-0123456789ab"),
    ("pipewire", 1000, f"{MANAGER}/user.slice/libpod-0123456789ab.scope/container/pipewire.service"),
    ("pipewire", 0, "/system.slice/docker-0123456789abcdef.scope"),
    ("pipewire", 0, "/system.slice/pipewire.service/libpod-payload-0123456789ab"),
    ("wireplumber", 1000, f"/lxc.payload.dj{MANAGER}/session.slice/wireplumber.service"),
    ("wireplumber", 1000, f"/machine.slice/machine-dj.scope/payload{MANAGER}/session.slice/wireplumber.service"),
]


@pytest.mark.parametrize(("name", "uid", "cgroup"), KNOWN)
def test_a_sound_server_is_known_by_its_unit(name: str, uid: int, cgroup: str) -> None:
    server = Process(500, 1, name, uid, cgroup)
    assert follows_its_card(server, [CONTROL])
    assert not follows_its_card(server, [CONTROL, "/dev/snd/pcmC1D3p"])


@pytest.mark.parametrize(("name", "uid", "cgroup"), UNKNOWN)
def test_a_name_makes_no_sound_server(name: str, uid: int, cgroup: str) -> None:
    assert not follows_its_card(Process(500, 1, name, uid, cgroup), [CONTROL])


def stop(machine: SimulatedMachine, server: SimulatedProcess) -> None:
    machine.processes.signal(server.value, signal.SIGSTOP)


def go_on(machine: SimulatedMachine, server: SimulatedProcess) -> None:
    machine.processes.signal(server.value, signal.SIGCONT)


def freeze(machine: SimulatedMachine, server: SimulatedProcess) -> None:
    del server
    machine.control_groups.request("/user.slice/user-1000.slice", frozen=True)


def thaw(machine: SimulatedMachine, server: SimulatedProcess) -> None:
    del server
    machine.control_groups.request("/user.slice/user-1000.slice", frozen=False)


Change = Callable[[SimulatedMachine, SimulatedProcess], None]
STANDSTILLS = pytest.mark.parametrize(("halt", "resume"), [(stop, go_on), (freeze, thaw)])


@STANDSTILLS
@in_virtual_time
async def test_the_unbind_waits_for_one_that_stands_still(halt: Change, resume: Change) -> None:
    """In the simulated kernel as in the real one: a stopped process closes nothing (kernel.md fact 6)."""
    machine = await igpu_dgpu(sound=EVERY_SOUND)
    (server,) = machine.processes.named("wireplumber")
    halt(machine, server)
    await asyncio.sleep(1)
    with pytest.raises(OverdueError) as caught:
        await machine.kernel.write(UNBIND, AUDIO, deadline=5)
    assert (caught.value.state, caught.value.waits_in) == ("D", "snd_card_free")
    resume(machine, server)
    await asyncio.sleep(1)
    assert not machine.operations
    await machine.kernel.write("/sys/bus/pci/drivers_probe", AUDIO)
    await asyncio.sleep(1)
    assert machine.processes.with_path(CONTROL) == [server]


@STANDSTILLS
def test_one_that_stands_still_is_in_the_way(halt: Change, resume: Change, tmp_path: Path) -> None:
    async def main() -> None:
        machine = await igpu_dgpu(sound=EVERY_SOUND)
        product = await Product(machine, tmp_path).start()
        (server,) = machine.processes.named("wireplumber")
        halt(machine, server)
        await asyncio.sleep(1)
        before = machine.snapshot()
        with pytest.raises(RemoteError, match=rf"in use by wireplumber \(pid {server.pid}\)") as caught:
            await product.call("Handoff", "sa{sv}", GPU, {})
        assert caught.value.name.endswith(".InUse")
        assert differences(before, machine.snapshot()) == []
        resume(machine, server)
        await asyncio.sleep(1)
        await product.handoff(GPU)
        assert not machine.processes.with_path(CONTROL)
        await product.reclaim(GPU)
        await product.stop()

    run(main())


def test_one_that_is_stopped_on_the_way_is_seen_before_the_driver_goes(tmp_path: Path) -> None:
    async def main() -> None:
        machine = await igpu_dgpu(sound=EVERY_SOUND)
        product = await Product(machine, tmp_path).start()
        (server,) = machine.processes.named("wireplumber")
        before = machine.snapshot()

        async def halt(perform: Perform) -> None:
            await perform()
            stop(machine, server)

        machine.faults.set(halt, kind="write", target=f"{GPU}/driver_override")
        with pytest.raises(RemoteError, match="was opened while it was on its way: wireplumber"):
            await product.handoff(GPU)
        go_on(machine, server)
        assert differences(before, machine.snapshot()) == []
        await product.stop()

    run(main())


@pytest.mark.parametrize(("name", "uid", "cgroup"), [UNKNOWN[0], UNKNOWN[8]])
def test_who_is_no_sound_server_of_this_machine_is_in_the_way(name: str, uid: int, cgroup: str, tmp_path: Path) -> None:
    """In a container with /dev/snd it does not hear udev, which speaks to one network namespace."""

    async def main() -> None:
        machine = await igpu_dgpu()
        product = await Product(machine, tmp_path).start()
        other = machine.processes.spawn(name, uid=uid, cgroup=cgroup, opens=[CONTROL])
        before = machine.snapshot()
        with pytest.raises(RemoteError, match=rf"in use by pipewire \(pid {other.pid}\)") as caught:
            await product.call("Handoff", "sa{sv}", GPU, {})
        assert caught.value.name.endswith(".InUse")
        assert differences(before, machine.snapshot()) == []
        machine.processes.end(other.pid)
        await product.handoff(GPU)
        await product.stop()

    run(main())


@in_virtual_time
async def test_nobody_is_settled_who_stands_still() -> None:
    machine = await igpu_dgpu(sound=EVERY_SOUND)
    bench = await StepBench.of(machine)
    (server,) = machine.processes.named("wireplumber")
    await bench.apply("settle-holders", settle(machine))
    assert await bench.holds()
    stop(machine, server)
    assert not await bench.holds()
    with pytest.raises(InUseError, match="wireplumber"):
        await bench.apply("settle-holders", settle(machine))
