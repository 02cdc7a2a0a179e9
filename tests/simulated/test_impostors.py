"""Processes that others have named, or made to hold a card: neither overlooked by their name nor ended by a trick."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhandoff.errors import InUseError
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.roles import is_seat_service, is_vital
from gpuhandoff.model.world import Process
from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.scenarios import igpu_dgpu, twin
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product
from tests.support.step_cases import settle
from tests.support.steps import StepBench

GPU, SECOND = "0000:01:00.0", "0000:02:00.0"
TERMINATE = {"holders": Variant("s", "terminate")}
THEIR_OWN = "/user.slice/user-1001.slice/session-7.scope"
IMPOSTORS = [
    ("seatd", 1001, THEIR_OWN),
    ("systemd-logind", 1001, "/user.slice/user-1001.slice/user@1001.service/app.slice/systemd-logind.service"),
    ("systemd-logind", 0, THEIR_OWN),  # a link to su, waiting for a password
    ("systemd-logind", 1001, "/system.slice/cron.service"),  # a job of theirs
    ("systemd-logind", 1001, "/system.slice/cron.service/systemd-logind.service"),
    ("systemd-logind", 1001, ""),
]


@pytest.mark.parametrize(("name", "uid", "cgroup"), IMPOSTORS)
def test_a_name_makes_no_logind(name: str, uid: int, cgroup: str) -> None:
    assert not is_seat_service(Process(500, 1, name, uid, cgroup))
    assert not is_vital(Process(500, 1, name, uid, cgroup))


def test_logind_is_known_by_its_unit() -> None:
    assert is_seat_service(Process(500, 1, "systemd-logind", 0, "/system.slice/systemd-logind.service"))
    assert is_seat_service(Process(500, 1, "elogind", 0))
    assert is_seat_service(Process(1, 1, "anything", 0, "/init.scope"))
    assert not is_seat_service(Process(500, 1, "dbus-daemon", 101, "/system.slice/dbus.service"))


def test_what_the_machine_cannot_do_without_is_known_by_its_unit() -> None:
    assert is_vital(Process(500, 1, "dbus-daemon", 101, "/system.slice/dbus.service"))
    assert is_vital(Process(500, 1, "(udev-worker)", 0, "/system.slice/systemd-udevd.service/udev"))
    assert not is_vital(Process(500, 1, "dbus-daemon", 1001, THEIR_OWN))
    assert not is_vital(Process(500, 1, "x", 1001, "/user.slice/system.slice/dbus.service"))
    assert not is_vital(Process(500, 1, "x", 1001, "/machine.slice/system.slice/dbus.service"))


def test_who_calls_themselves_logind_holds_the_card_like_anybody(tmp_path: Path) -> None:
    """Overlooked, they would have the driver unbound under their hands, which may never return."""

    async def main() -> None:
        machine = await twin()
        product = await Product(machine, tmp_path).start()
        before = machine.snapshot()
        impostor = machine.processes.spawn("seatd", uid=1001, cgroup=THEIR_OWN, opens=["/dev/nvidia1"])
        with pytest.raises(RemoteError, match=rf"in use by seatd \(pid {impostor.pid}\)") as caught:
            await product.call("Handoff", "sa{sv}", SECOND, {})
        assert caught.value.name.endswith(".InUse")
        machine.processes.end(impostor.pid)
        assert differences(before, machine.snapshot()) == []
        impostor = machine.processes.spawn("seatd", uid=1001, cgroup=THEIR_OWN, opens=["/dev/nvidia1"])
        await product.call("Handoff", "sa{sv}", SECOND, TERMINATE)
        assert not machine.processes.named("seatd")
        await product.reclaim(SECOND)
        await product.stop()

    run(main())


def test_whoever_sends_the_bus_a_card_does_not_have_it_ended(tmp_path: Path) -> None:
    """A message with the card's descriptor, to somebody who does not read: it stays with dbus-daemon meanwhile."""

    async def main() -> None:
        machine = await igpu_dgpu()
        product = await Product(machine, tmp_path).start()
        (bus,) = machine.processes.named("dbus-daemon")
        machine.processes.open(bus, "/dev/nvidia0")
        before = machine.snapshot()
        for options in ({}, TERMINATE):
            with pytest.raises(RemoteError, match=r"dbus-daemon.*never ended") as caught:
                await product.call("Handoff", "sa{sv}", GPU, options)
            assert caught.value.name.endswith(".InUse")
        assert machine.processes.named("dbus-daemon") == [bus]
        assert differences(before, machine.snapshot()) == []
        machine.processes.close(bus)
        await product.call("Handoff", "sa{sv}", GPU, TERMINATE)
        await product.reclaim(GPU)
        await product.stop()

    run(main())


@in_virtual_time
async def test_nor_when_it_comes_after_the_last_look() -> None:
    machine = await igpu_dgpu()
    bench = await StepBench.of(machine)
    (bus,) = machine.processes.named("dbus-daemon")
    machine.processes.open(bus, "/dev/nvidia0")
    other = machine.processes.spawn("train", uid=1001, opens=["/dev/nvidia0"])
    with pytest.raises(InUseError, match=r"never ended: dbus-daemon"):
        await bench.apply("settle-holders", settle(machine, terminate=True))
    assert machine.processes.named("dbus-daemon") == [bus]
    assert not machine.processes.named(other.name)
