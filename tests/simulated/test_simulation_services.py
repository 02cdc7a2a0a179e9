"""systemd, logind and polkit on the bus (kernel.md 6, 11)."""

import asyncio
import os
from typing import Any

import pytest

from gpuhandoff.host import Host
from gpuhandoff.messages import Bus, Match, RemoteError, Signal, Variant
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import hang
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import GPU, igpu_dgpu, single_nvidia
from gpuhandoff.simulation.sessions import Compositor, SimulatedSession

SYSTEMD = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
POLKIT = (
    "org.freedesktop.PolicyKit1",
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.PolicyKit1.Authority",
)


async def connected(machine: SimulatedMachine) -> tuple[Bus, Host]:
    broker = LoopbackBroker()
    await machine.serve(broker)
    bus = broker.connect()
    return bus, simulated_host(machine, bus)


async def ask(bus: Bus, action: str, *, flags: int = 0, cancellation: str = "") -> tuple[Any, ...]:
    subject = ("system-bus-name", {"name": Variant("s", bus.unique_name)})
    (answer,) = await bus.call(
        *POLKIT, "CheckAuthorization", "(sa{sv})sa{ss}us", (subject, action, {"gpu": GPU}, flags, cancellation)
    )
    return tuple(answer)


@in_virtual_time
async def test_stopping_the_display_manager_frees_the_gpu_and_starting_it_logs_in_again() -> None:
    machine = await single_nvidia()
    _, host = await connected(machine)
    before = machine.snapshot()
    await host.units.stop("display-manager.service")
    sessions = [session.id for session in await host.logins.sessions()]
    assert await host.logins.wait_removed(sessions, timeout=10)
    assert await host.processes.holding(["/dev/dri/card0", "/dev/dri/renderD128"]) == ()
    await host.units.start("display-manager.service")
    await asyncio.sleep(5)
    assert machine.snapshot() == before


@in_virtual_time
async def test_a_job_ends_before_the_compositor_does() -> None:
    machine = await single_nvidia()
    _, host = await connected(machine)
    await host.units.stop("display-manager.service")
    assert await host.processes.holding(["/dev/dri/card0"])


@in_virtual_time
@pytest.mark.parametrize("ends", [Compositor.USER_SERVICE, Compositor.SURVIVES])
async def test_fact_12_a_compositor_in_the_user_service_outlives_the_display_manager(ends: Compositor) -> None:
    machine = await single_nvidia(ends=ends)
    machine.sessions.user_stop_delay = 3600
    _, host = await connected(machine)
    await host.units.stop("display-manager.service")
    await asyncio.sleep(5)
    holders = {one.process.name for one in await host.processes.holding(["/dev/dri/card0"])}
    if ends is Compositor.USER_SERVICE:
        assert holders == set()
    else:
        assert holders == {"kwin_wayland"}
        await host.units.stop("user@1000.service")
        assert await host.processes.holding(["/dev/dri/card0"]) == ()


@in_virtual_time
async def test_logind_and_pid_1_hold_the_card_for_the_compositor() -> None:
    machine = await single_nvidia()
    holders = {one.process.name for one in await machine.processes.holding(["/dev/dri/card0"])}
    assert {"systemd", "systemd-logind", "kwin_wayland"} <= holders


@in_virtual_time
async def test_killing_the_display_manager_is_useless() -> None:
    machine = await single_nvidia()
    _, host = await connected(machine)
    machine.processes.signal(machine.processes.named("sddm")[0].value, 9)
    await asyncio.sleep(5)
    unit = await host.units.unit("display-manager.service")
    assert unit is not None
    assert (unit.name, unit.active_state) == ("sddm.service", "active")


@in_virtual_time
async def test_jobs_are_told_of_only_to_those_who_subscribed() -> None:
    machine = await igpu_dgpu()
    bus, _ = await connected(machine)
    seen: list[Signal] = []
    await bus.subscribe(Match(SYSTEMD[2], "JobRemoved", sender=SYSTEMD[0]), seen.append)
    await bus.call(*SYSTEMD, "StopUnit", "ss", ("cron.service", "replace"))
    await asyncio.sleep(1)
    assert not seen
    await bus.call(*SYSTEMD, "Subscribe")
    (path,) = await bus.call(*SYSTEMD, "StartUnit", "ss", ("cron.service", "replace"))
    await asyncio.sleep(1)
    assert [signal.body[1:] for signal in seen] == [(path, "cron.service", "done")]


@in_virtual_time
async def test_a_start_that_waits_is_a_job_of_an_inactive_unit_and_is_cancelled_by_a_stop() -> None:
    machine = await igpu_dgpu()
    bus, host = await connected(machine)
    seen: list[Signal] = []
    await bus.subscribe(Match(SYSTEMD[2], "JobRemoved", sender=SYSTEMD[0]), seen.append)
    await host.units.stop("cron.service")
    machine.faults.set(hang(), kind="job", target="cron.service", detail="start")
    (first,) = await bus.call(*SYSTEMD, "StartUnit", "ss", ("cron.service", "replace"))
    unit = await host.units.unit("cron.service")
    assert unit is not None
    assert (unit.active_state, unit.job) == ("inactive", "start")
    await host.units.stop("cron.service")
    assert [signal.body[1::2] for signal in seen][1] == (first, "canceled")
    assert seen[2].body[3] == "done"


@in_virtual_time
async def test_a_stubborn_service_is_killed_after_its_timeout_and_an_unkillable_one_fails() -> None:
    machine = await igpu_dgpu()
    _, host = await connected(machine)
    cron, ssh = machine.units.units["cron.service"], machine.units.units["ssh.service"]
    assert cron.main is not None
    assert ssh.main is not None
    cron.main.stubborn = True
    started = asyncio.get_running_loop().time()
    await host.units.stop("cron.service", timeout=200)
    assert asyncio.get_running_loop().time() - started > 90
    ssh.main.unkillable = ssh.main.stubborn = True
    with pytest.raises(Exception, match="timeout"):
        await host.units.stop("ssh.service", timeout=300)


@in_virtual_time
async def test_a_service_that_needs_the_driver_fails_without_it() -> None:
    machine = await igpu_dgpu()
    _, host = await connected(machine)
    for module in ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"):
        await machine.kernel.remove_module(module)
    with pytest.raises(Exception, match="failed"):
        await host.units.start("nvidia-persistenced.service")
    await host.units.reset_failed("nvidia-persistenced.service")
    await machine.kernel.load_module("nvidia")
    await host.units.start("nvidia-persistenced.service")
    assert machine.processes.with_path("/dev/nvidia0")


@in_virtual_time
async def test_systemd_43846_allowed_cpus_are_a_mask_and_an_empty_one_widens_nothing() -> None:
    machine = await igpu_dgpu()
    _, host = await connected(machine)
    await host.units.set_runtime("system.slice", {"AllowedCPUs": Variant("ay", b"\x03")})
    assert await host.units.get("system.slice", "org.freedesktop.systemd1.Slice", "AllowedCPUs") == b"\x03"
    effective = await host.units.get("cron.service", "org.freedesktop.systemd1.Service", "EffectiveCPUs")
    assert effective == b"\x03"
    await host.units.set_runtime("system.slice", {"AllowedCPUs": Variant("ay", b"")})
    assert await host.units.get("system.slice", "org.freedesktop.systemd1.Slice", "AllowedCPUs") == b""
    assert machine.snapshot()["units"]["cron.service"]["effective_cpus"] == "0-1"
    await host.units.set_runtime("system.slice", {"AllowedCPUs": Variant("ay", b"\xff\x01")})  # more than there are
    assert machine.snapshot()["units"]["cron.service"]["effective_cpus"] == "0-7"
    with pytest.raises(RemoteError):
        await host.units.set_runtime("system.slice", {"Nonsense": Variant("s", "")})


@in_virtual_time
async def test_a_frozen_unit_is_thawed_before_it_stops() -> None:
    machine = await igpu_dgpu()
    _, host = await connected(machine)
    await host.units.freeze("cron.service")
    assert machine.snapshot()["frozen"] == ["/system.slice/cron.service"]
    await host.units.stop("cron.service")
    assert machine.snapshot()["frozen"] == []


@in_virtual_time
async def test_an_unknown_unit_is_no_such_unit() -> None:
    machine = await igpu_dgpu()
    bus, host = await connected(machine)
    assert await host.units.unit("nothing.service") is None
    with pytest.raises(RemoteError) as caught:
        await bus.call(*SYSTEMD, "StopUnit", "ss", ("nothing.service", "replace"))
    assert caught.value.name == "org.freedesktop.systemd1.NoSuchUnit"


@in_virtual_time
async def test_an_inhibitor_lasts_until_its_descriptor_is_closed() -> None:
    machine = await igpu_dgpu()
    bus, host = await connected(machine)
    descriptor = await host.logins.inhibit("sleep:shutdown", "gpuhandoff", "a GPU is away", "block")
    (listed,) = await bus.call(*LOGIND, "ListInhibitors")
    assert listed[0][:2] == ("sleep:shutdown", "gpuhandoff")
    os.close(descriptor)
    await asyncio.sleep(0.1)
    assert machine.snapshot()["inhibitors"] == []


@in_virtual_time
async def test_terminating_a_session_ends_what_is_in_it() -> None:
    machine = await single_nvidia()
    _, host = await connected(machine)
    alice = next(session for session in await host.logins.sessions() if session.user == "alice")
    assert (alice.kind, alice.type, alice.seat) == ("user", "wayland", "seat0")
    await host.logins.terminate(alice.id)
    assert await host.logins.wait_removed([alice.id], timeout=5)
    assert not machine.processes.named("firefox")


@in_virtual_time
async def test_polkit_allows_denies_and_asks() -> None:
    machine = await igpu_dgpu()
    bus, _ = await connected(machine)
    machine.polkit.denied.add("org.gpuhandoff.reclaim")
    machine.polkit.challenged.add("org.gpuhandoff.handoff")
    assert await ask(bus, "org.gpuhandoff.status") == (True, False, {})
    assert await ask(bus, "org.gpuhandoff.reclaim") == (False, False, {})
    assert await ask(bus, "org.gpuhandoff.handoff") == (False, True, {})
    assert await ask(bus, "org.gpuhandoff.handoff", flags=1) == (True, False, {})
    assert machine.polkit.questions[0].sender == bus.unique_name
    assert machine.polkit.questions[-1].interactive


@in_virtual_time
async def test_a_polkit_dialog_can_be_cancelled() -> None:
    machine = await igpu_dgpu()
    bus, _ = await connected(machine)
    machine.polkit.unanswered.add("org.gpuhandoff.handoff")
    question = asyncio.create_task(ask(bus, "org.gpuhandoff.handoff", flags=1, cancellation="7"))
    await asyncio.sleep(1)
    await bus.call(*POLKIT, "CancelCheckAuthorization", "s", ("7",))
    with pytest.raises(RemoteError, match="Cancelled"):
        await question


@in_virtual_time
async def test_who_logs_in_again_when_their_manager_is_about_to_be_stopped_keeps_one() -> None:
    machine = await single_nvidia()
    before = machine.snapshot()
    (greeter,) = [one for one in machine.sessions.sessions.values() if one.login.kind == "greeter"]
    display = machine.units.find("sddm.service")
    assert display is not None
    manager = display.main
    assert manager is not None

    def removed(_: SimulatedSession) -> None:
        again = machine.sessions.open(greeter.login, manager, machine.display_nodes((GPU,)))
        delay = machine.sessions.user_stop_delay * machine.waits.pace
        asyncio.get_running_loop().call_later(
            delay - 1e-10, machine.background, again
        )  # in one turn of the loop with the stop

    machine.sessions.on_removed.append(removed)
    await machine.sessions.terminate(greeter)
    await asyncio.sleep(5)
    after = machine.snapshot()
    assert after["processes"] == before["processes"]
    assert after["units"]["user@110.service"] == before["units"]["user@110.service"]
