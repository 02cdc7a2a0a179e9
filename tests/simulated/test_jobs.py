"""Jobs: what joins what, what is told to whom when something unforeseen fails, and that looks come in order."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation, Options, Request
from gpuhandoff.service.jobs import Job
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import after, hang, refuse, reject
from gpuhandoff.simulation.scenarios import igpu_dgpu
from gpuhandoff.transaction.journal import Journal
from tests.support.product import Product

GPU = "0000:01:00.0"
CARD = PciAddress.parse(GPU)
LATER = {"wait": Variant("b", False)}


async def product(directory: Path) -> Product:
    return await Product(await igpu_dgpu(), directory).start()


async def moving(one: Product, **options: Variant) -> str:
    """Return the job of a handoff that is under way."""
    job = await one.call("Handoff", "sa{sv}", GPU, {**LATER, **options})
    await asyncio.sleep(0.01)
    assert one.jobs.running(CARD) is not None
    return str(job)


@in_virtual_time
async def test_the_same_request_joins_and_its_callers_all_get_the_end(tmp_path: Path) -> None:
    one = await product(tmp_path)
    job = await moving(one, vm=Variant("s", "win11"))
    assert await one.call("Handoff", "sa{sv}", GPU, {"vm": Variant("s", "win11")}) == job
    assert (await one.status(GPU))["state"] == "detached"
    await one.stop()


@pytest.mark.parametrize(
    "options",
    [
        {"vm": Variant("s", "other")},
        {"dry-run": Variant("b", True)},
        {"cpus": Variant("s", "0-1")},
        {"holders": Variant("s", "terminate")},
        {"lease": Variant("b", True)},
    ],
    ids=lambda options: next(iter(options)),
)
@in_virtual_time
async def test_another_request_does_not_get_less_than_it_asked_for(tmp_path: Path, options: dict[str, Variant]) -> None:
    one = await product(tmp_path)
    await moving(one)
    with pytest.raises(RemoteError, match="is busy with a handoff") as caught:
        await one.call("Handoff", "sa{sv}", GPU, options)
    assert caught.value.name == "org.gpuhandoff.Error.Busy"
    await one.idle()
    await one.stop()


@in_virtual_time
async def test_a_handoff_does_not_join_its_own_dry_run(tmp_path: Path) -> None:
    one = await product(tmp_path)
    one.machine.faults.set(hang(), target="ListSessions")
    await moving(one, **{"dry-run": Variant("b", True)})
    with pytest.raises(RemoteError, match="is busy"):
        await one.call("Handoff", "sa{sv}", GPU, {})
    one.jobs.cancel_all()
    await one.idle()
    await one.stop()


@in_virtual_time
async def test_a_lease_is_its_callers_own(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await moving(one, lease=Variant("b", True))
    other = one.broker.connect(uid=1000)
    with pytest.raises(RemoteError, match="is busy"):
        await other.call(
            "org.gpuhandoff.Manager",
            "/org/gpuhandoff/Manager",
            "org.gpuhandoff.Manager",
            "Handoff",
            "sa{sv}",
            (GPU, {"lease": Variant("b", True)}),
        )
    await one.idle()
    await one.stop()


@in_virtual_time
async def test_a_reclaim_waits_for_a_daemon_that_has_just_started(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    await one.stop()
    await one.start_daemon(idle=False)
    assert one.jobs.running(CARD) is not None
    await one.reclaim(GPU)
    assert (await one.status(GPU))["state"] == "host"
    await one.stop()


@in_virtual_time
async def test_a_survey_that_fails_is_no_success(tmp_path: Path) -> None:
    one = await product(tmp_path)

    async def survey(**_: bool) -> None:
        raise OSError(errno.EIO, "Input/output error")

    assert one.daemon is not None
    one.daemon.fleet.survey = survey  # type: ignore[assignment,method-assign]
    for call in (one.handoff, one.reclaim):
        with pytest.raises(RemoteError, match=r"could not be looked at.*Input/output error") as caught:
            await call(GPU)
        assert caught.value.name == "org.gpuhandoff.Error.Unsupported"
    await one.stop()


@in_virtual_time
async def test_a_mistake_of_ours_is_no_success_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await product(tmp_path)

    def append(self: Journal, **line: object) -> None:
        raise TypeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        with pytest.raises(RemoteError, match=r"An internal error \(TypeError\)") as caught:
            await one.handoff(GPU)
    assert "a bug" not in caught.value.message
    await one.stop()


@in_virtual_time
async def test_a_refusal_of_another_service_is_not_taken_for_ours(tmp_path: Path) -> None:
    one = await product(tmp_path)
    denied = RemoteError("org.freedesktop.DBus.Error.AccessDenied", "No.")
    for member, arguments in (("Plan", ("ssa{sv}", GPU, "handoff", {})), ("Holders", ("s", GPU))):
        one.machine.faults.set(reject(denied), target="ListSessions")
        with pytest.raises(RemoteError, match="cannot be looked at: No") as caught:
            await one.call(member, *arguments)
        assert caught.value.name == "org.gpuhandoff.Error.Unsupported"
    await one.stop()


@in_virtual_time
async def test_an_older_look_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.call("Handoff", "sa{sv}", GPU, {})
    await asyncio.sleep(1)
    slow = asyncio.Event()
    one.machine.faults.set(hang(slow), target="ListSessions")
    looking = asyncio.create_task(one.call("Holders", "s", GPU))
    await asyncio.sleep(1)
    one.machine.start_guest(GPU)
    await asyncio.sleep(1)
    slow.set()
    await looking
    await asyncio.sleep(1)
    assert (await one.status(GPU))["state"] == "guest"
    await one.stop()


@in_virtual_time
async def test_a_look_that_failed_is_repeated(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.call("Handoff", "sa{sv}", GPU, {})
    await asyncio.sleep(1)
    one.machine.faults.set(reject(RemoteError("org.freedesktop.DBus.Error.NoReply", "Late.")), target="ListSessions")
    one.machine.start_guest(GPU)
    await asyncio.sleep(1)
    assert (await one.status(GPU))["state"] == "detached"
    await asyncio.sleep(10)
    assert (await one.status(GPU))["state"] == "guest"
    await one.stop()


@in_virtual_time
async def test_a_guest_that_comes_with_the_last_step_is_seen(tmp_path: Path) -> None:
    one = await product(tmp_path)

    def start() -> None:
        one.machine.start_guest(GPU)

    one.machine.faults.set(after(start), target="01:00.1/power/control")
    await one.call("Handoff", "sa{sv}", GPU, {})
    await asyncio.sleep(1)
    assert (await one.status(GPU))["state"] == "guest"
    await one.stop()


@in_virtual_time
async def test_the_service_manager_is_told_where_the_gpus_are(tmp_path: Path) -> None:
    one = await product(tmp_path)
    await one.handoff(GPU)
    one.machine.faults.set(refuse(errno.EIO), kind="load-module", nth=0)
    with pytest.raises(RemoteError):
        await one.reclaim(GPU)
    told = [text.partition(f"{GPU} ")[2] for text in one.announced]
    assert [text for text, before in zip(told, ["", *told], strict=False) if text != before] == [
        "host",
        "handing-off",
        "detached",
        "reclaiming",
        "stuck",
    ]
    await one.stop()


@in_virtual_time
async def test_a_job_that_is_cancelled_before_anything_of_it_ran_ends(tmp_path: Path) -> None:
    """Its task never begins then, and so could never end it."""
    one = await product(tmp_path)
    seen: list[str] = []

    async def work(_: Job) -> None:
        seen.append("begun")

    job = one.jobs.start(Request(Operation.HANDOFF, CARD, Options()), CARD, 0, work)
    one.jobs.cancel_all()
    await job.finished.wait()
    assert (seen, job.result, one.jobs.any_running) == ([], "cancelled", False)
    await one.handoff(GPU)
    await one.stop()
