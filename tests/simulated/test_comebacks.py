"""The card is free, or back: then nobody is left in the dark for what else went wrong, nor for what has ended since."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from gpuhandoff import names
from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import NO_REPLY, Match, RemoteError, Variant
from gpuhandoff.service.chronicle import Chronicle
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import Perform, late, refuse, reject
from gpuhandoff.simulation.processes import SimulatedProcesses
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from gpuhandoff.transaction.journal import Journal
from tests.support.plug import pull, push
from tests.support.product import OPTIONS, Product

GPU = "0000:01:00.0"
LATE = RemoteError(NO_REPLY, "Late.")
SERVICE = "nvidia-persistenced.service"
DISPLAY_MANAGER = "sddm.service"


async def product(directory: Path, scenario: str = "single-nvidia", grace: int = 10) -> Product:
    settings = Configuration(host=HostSettings(reclaim_grace=grace))
    return await Product(await SCENARIOS[scenario](), directory / "run", settings).start()


def shows_desktop(one: Product) -> bool:
    unit = one.machine.units.find(DISPLAY_MANAGER)
    assert unit is not None
    return unit.active_state == "active"


async def refusal(one: Product, member: str = "reclaim") -> str:
    with pytest.raises(RemoteError) as caught:
        await (one.reclaim(GPU) if member == "reclaim" else one.handoff(GPU))
    assert caught.value.name == "org.gpuhandoff.Error.Stuck"
    return caught.value.message


@pytest.mark.parametrize("grace", [0, 10])
@in_virtual_time
async def test_a_guest_that_has_ended_is_not_taken_for_one_that_runs_because_nobody_could_look(
    tmp_path: Path, grace: int
) -> None:
    one = await product(tmp_path, grace=grace)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    one.machine.start_guest(GPU)
    await asyncio.sleep(100)
    one.machine.stop_guest(GPU)
    one.machine.faults.set(reject(LATE), target="ListSessions", nth=0)
    await asyncio.sleep(0.5 + grace)
    one.machine.faults.clear()
    await asyncio.sleep(100)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@pytest.mark.parametrize("member", ["reclaim", "handoff"])
@pytest.mark.parametrize("what", ["sound", "service", "power"])
@in_virtual_time
async def test_the_desktop_does_not_wait_for_what_else_is_missing(tmp_path: Path, what: str, member: str) -> None:
    one = await product(tmp_path)
    before, faults = one.machine.snapshot(), one.machine.faults
    if member == "reclaim":
        await one.handoff(GPU)
    else:
        faults.set(refuse(errno.EIO), target="vfio-pci/bind", nth=0)
        faults.set(refuse(errno.EIO), target="drivers_probe", detail="01:00.0", nth=1)
    match what:
        case "sound":
            faults.set(refuse(errno.EIO), target="snd_hda_intel/bind", nth=0)
            faults.set(refuse(errno.EIO), target="drivers_probe", detail="01:00.1", nth=0 if member == "reclaim" else -2)
        case "service":
            faults.set(refuse(errno.EIO), kind="job", target=SERVICE, detail="start", nth=0)
        case "power":
            faults.set(refuse(errno.EIO), kind="write", target="d3cold_allowed", nth=0 if member == "reclaim" else -3)
    message = await refusal(one, member)
    step = {"sound": "unload-driver", "service": "stop-gpu-services", "power": "claim-functions"}[what]
    assert f"stuck at {step}" in message
    assert "have it open" not in message
    assert " has /dev/" not in message
    assert shows_desktop(one)
    status = await one.status(GPU)
    assert (status["state"], status["driver"]) == ("stuck", "nvidia")
    faults.clear()
    await one.reclaim(GPU)
    await asyncio.sleep(5)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@pytest.mark.parametrize("member", ["GetUnit", "StartUnit"])
@in_virtual_time
async def test_a_systemd_that_does_not_answer_for_a_while_leaves_nobody_in_the_dark(tmp_path: Path, member: str) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    silent: list[bool] = []
    one.machine.faults.set(reject(LATE), target=member, nth=0, when=lambda _: bool(silent))
    match = Match(names.MANAGER_INTERFACE, "Progress")
    await one.client.subscribe(match, lambda signal: silent.append(True) if signal.body[1] == "claim-functions" else None)
    assert "gpuhandoff tries again by itself" in await refusal(one)
    await asyncio.sleep(60)
    assert (await one.status(GPU))["state"] in {"stuck", "reclaiming"}
    one.machine.faults.clear()
    await asyncio.sleep(400)
    assert (await one.status(GPU))["state"] == "host"
    assert shows_desktop(one)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@pytest.mark.parametrize("unit", [DISPLAY_MANAGER, SERVICE])
@pytest.mark.parametrize("how", ["cancelled", "killed"])
@in_virtual_time
async def test_a_stop_that_still_waits_for_another_units_is_called_off(tmp_path: Path, unit: str, how: str) -> None:
    """systemd shows a unit as active until its stop has begun (a unit that is ordered after it stops first)."""
    one = await product(tmp_path)
    before = one.machine.snapshot()
    one.machine.faults.set(late(10), kind="job", target=unit, detail="stop")
    job = await one.call("Handoff", "sa{sv}", GPU, {"stop-display": Variant("b", True), "wait": Variant("b", False)})
    await asyncio.sleep(4)
    if how == "cancelled":
        await one.client.call(names.BUS_NAME, job, names.JOB_INTERFACE, "Cancel")
        await one.idle()
    else:
        one.kill()
        await one.start_daemon()
    await asyncio.sleep(100)
    assert (await one.status(GPU))["state"] == "host"
    assert shows_desktop(one)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_daemon_that_is_being_stopped_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await product(tmp_path)
    before, close = one.machine.snapshot(), Chronicle.close
    said: list[str] = []

    async def slow(chronicle: Chronicle) -> None:
        """The disk has the last line only after a while, in which somebody calls."""
        with pytest.raises(RemoteError) as caught:
            await one.call("Handoff", "sa{sv}", GPU, OPTIONS)
        said.append(caught.value.message)
        await close(chronicle)

    monkeypatch.setattr(Chronicle, "close", slow)
    await one.stop()
    assert said == ["gpuhandoffd is being stopped. Nothing was changed; ask again when it has been started."]
    assert differences(before, one.machine.snapshot()) == []
    assert one.journals() == []


@pytest.mark.parametrize("scenario", ["single-nvidia", "igpu-dgpu"])
@pytest.mark.parametrize("away", [0.3, 1.0, 2.0, 60.0, 4000.0])
@in_virtual_time
async def test_a_lent_card_that_is_pulled_out_and_put_back_is_the_hosts(tmp_path: Path, scenario: str, away: float) -> None:
    one = await product(tmp_path, scenario)
    before = one.machine.snapshot()
    await one.handoff(GPU)
    card = await pull(one.machine)
    await asyncio.sleep(away)
    await push(one.machine, card)
    await asyncio.sleep(400)
    assert (await one.status(GPU))["state"] == "host"
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()


@in_virtual_time
async def test_a_card_that_is_gone_has_no_windows_to_set_back(tmp_path: Path) -> None:
    one = await product(tmp_path, "igpu-dgpu")
    await one.call("Handoff", "sa{sv}", GPU, {"bars": Variant("s", "1=256M")})
    await pull(one.machine)
    await asyncio.sleep(60)
    (move,) = await one.call("History", "su", GPU, 1)
    assert "has left the PCI bus" in move["message"].value
    assert "firmware" not in move["message"].value
    await one.stop()


@in_virtual_time
async def test_a_desktop_that_has_the_card_again_is_not_to_be_closed(tmp_path: Path) -> None:
    """KWin takes a second card as soon as it is there; only its sound is missing."""
    one = await product(tmp_path, "igpu-dgpu")
    card = next(node for node in one.machine.display_nodes((GPU,)) if "card" in node)
    await one.handoff(GPU)

    async def fail(_perform: Perform) -> None:
        one.machine.processes.spawn("kwin_wayland", uid=1000, opens=[card])
        raise OSError(errno.EIO, "Input/output error")

    one.machine.faults.set(fail, target="snd_hda_intel/bind", nth=0)
    one.machine.faults.set(refuse(errno.EIO), target="drivers_probe", detail="01:00.1", nth=0)
    message = await refusal(one)
    assert "0000:01:00.0 is back, but not 0000:01:00.1" in message
    assert "kwin" not in message
    one.machine.faults.clear()
    await one.reclaim(GPU)
    await one.stop()


@in_virtual_time
async def test_a_look_that_fails_in_an_unforeseen_way_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    await asyncio.sleep(5)

    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedProcesses, "holding", fails)
        one.machine.start_guest(GPU)
        await asyncio.sleep(1)
    await asyncio.sleep(100)
    assert (await one.status(GPU))["state"] == "guest"
    assert "looking again" in caplog.text
    one.machine.stop_guest(GPU)
    await asyncio.sleep(100)
    assert (await one.status(GPU))["state"] == "host"
    await one.stop()


@in_virtual_time
async def test_a_journal_that_cannot_be_read_in_a_rollback_is_no_unchanged_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await product(tmp_path)
    before = one.machine.snapshot()

    def fails(_: Journal) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    one.machine.faults.set(refuse(errno.EIO), kind="write", target="drivers_probe", nth=0)
    one.machine.faults.set(refuse(errno.EIO), kind="write", target="vfio-pci/bind", nth=0)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "read", fails)
        message = await refusal(one, "handoff")
    assert "cannot be read (EMFILE" in message
    assert f"{GPU}.journal" in message
    one.machine.faults.clear()
    await one.reclaim(GPU)
    await asyncio.sleep(5)
    assert differences(before, one.machine.snapshot()) == []
    await one.stop()
