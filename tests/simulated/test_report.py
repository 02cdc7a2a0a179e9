"""Report of the whole product: complete, without names unless they are asked for, and never a failure."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.config import Configuration
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.report.redaction import LEFT_OUT
from gpuhandoff.service import support
from gpuhandoff.simulation.archive import HOST_NAME
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import hang, reject
from gpuhandoff.simulation.scenarios import single_nvidia
from tests.support.product import Product

GPU = "0000:01:00.0"
NAMES = {"names": Variant("b", True)}
VM = "steuer-2026"


async def started(directory: Path) -> Product:
    """Return a product in whose records there are names."""
    configuration = Configuration(vms={VM: {"timeout": 60}})
    product = Product(await single_nvidia(), directory / "run", configuration, directory / "state")
    product.archive.kernel = [
        "nvidia 0000:01:00.0: hello",
        f"vfio: {HOST_NAME}: started from /home/alice/{VM}.sh",
        "usb 1-1: SerialNumber: 0815",
    ]
    return await product.start()


async def report(product: Product, **options: Variant) -> dict[str, Any]:
    """Return what Report answers."""
    return dict(json.loads(await product.call("Report", "a{sv}", options)))


@in_virtual_time
async def test_everything_is_there(tmp_path: Path) -> None:
    product = await started(tmp_path)
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {})
    await product.handoff(GPU, vm=Variant("s", VM))
    (tmp_path / "run" / "0000:02:00.0.unreadable").write_text("not a journal\n")
    found = await report(product, **NAMES)
    assert {"gpuhandoff", "kernel", "python", "systemd", "dbus-next", "systemd-python", "distribution"} <= {
        name for name, version in found["versions"].items() if version
    }
    assert found["gpus"][GPU]["state"] == "detached"
    assert found["gpus"][GPU]["pending"] == []
    assert found["machine"]["gpus"][0]["functions"][0]["driver"] == "vfio-pci"
    assert found["machine"]["modules"]
    assert found["configuration"]["vms"] == {VM: {"timeout": 60}}
    lines = found["journals"][f"{GPU}.journal"]
    assert found["journals"]["0000:02:00.0.unreadable"] == ["not a journal"]
    assert (lines[0]["vm"], lines[-1]["held"]) == (VM, True)
    assert [move["outcome"] for move in found["history"]] == ["done", "refused"]
    assert len(found["kernel-log"]) == 2
    assert (found["jobs"], found["notes"], found["left-out"]) == ([], [], [])
    await product.stop()


@in_virtual_time
async def test_no_name_is_in_it_unless_it_is_asked_for(tmp_path: Path) -> None:
    product = await started(tmp_path)
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {})
    before = json.dumps(await report(product))
    await product.handoff(GPU, vm=Variant("s", VM))
    (journal,) = (tmp_path / "run").glob("*.journal")
    journal.write_text(journal.read_text() + '{"undoing":"torn in the middle of ' + VM)
    away = await report(product)
    for text in (before, json.dumps(away)):
        assert "user1" in text
        for name in ("alice", VM, HOST_NAME, "3f0c2f4e-5d0a"):
            assert name not in text
    assert away["kernel-log"] == ["nvidia 0000:01:00.0: hello", "vfio: host1: started from /home/user1/…"]
    assert away["left-out"] == list(LEFT_OUT)
    assert away["history"][0]["vm"] == away["journals"][f"{GPU}.journal"][0]["vm"] == "vm1"
    named = json.dumps(await report(product, **NAMES))
    assert all(name in named for name in ("alice", VM, HOST_NAME, "3f0c2f4e-5d0a"))
    await product.stop()


@in_virtual_time
async def test_a_running_job_and_what_the_kernel_has_not_finished(tmp_path: Path) -> None:
    product = await started(tmp_path)
    go_on = asyncio.Event()
    product.machine.faults.set(hang(go_on), kind="write", target="drivers_probe")
    moving = asyncio.create_task(product.handoff(GPU))
    await asyncio.sleep(5)
    found = await report(product)
    assert [(job["Step"], job["Result"]) for job in found["jobs"]] == [("bind-vfio", "")]
    assert found["history"][0]["outcome"] == "running"
    go_on.set()
    await moving
    await product.stop()


def broken(*arguments: object) -> list[str]:
    raise OSError("the disk is gone")


@in_virtual_time
async def test_a_source_that_fails_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = await started(tmp_path)
    for name in ("kernel_lines", "daemon_lines", "users", "host_names"):
        monkeypatch.setattr(product.archive, name, broken)
    monkeypatch.setattr(support, "_versions", broken)
    monkeypatch.setattr(support, "_journals", broken)
    product.machine.faults.set(reject(RemoteError("org.example.Gone", "logind is gone")), target="ListSessionsEx", nth=0)
    product.machine.faults.set(reject(RemoteError("org.example.Gone", "logind is gone")), target="ListSessions", nth=0)
    found = await report(product)
    sources = {note.partition(":")[0] for note in found["notes"]}
    assert sources == {
        "the machine as it is now", "versions", "open journals", "the kernel's log", "the daemon's log",
        "the names of users", "the name of the host",
    }  # fmt: skip
    assert found["notes"].count("the kernel's log: the disk is gone") == 1
    assert found["gpus"][GPU]["state"] == "host"
    await product.stop()


@in_virtual_time
async def test_a_bug_in_a_source_is_a_note_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = await started(tmp_path)
    monkeypatch.setattr(product.archive, "kernel_lines", lambda relevant: 1 / 0)
    found = await report(product)
    assert found["notes"] == ["the kernel's log: ZeroDivisionError; the daemon's log has the details"]
    await product.stop()


def test_a_source_that_hangs_is_a_note_and_others_are_served_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In real time: a clock that waits for threads would wait for this one."""
    answer, asked = threading.Event(), threading.Event()
    monkeypatch.setattr(support, "PATIENCE", 0.2)

    def hanging(relevant: object) -> list[str]:
        asked.set()
        answer.wait(20)
        return []

    async def main() -> None:
        product = await started(tmp_path)
        monkeypatch.setattr(product.archive, "kernel_lines", hanging)
        reporting = asyncio.create_task(report(product))
        await asyncio.to_thread(asked.wait, 20)
        assert (await product.status(GPU))["state"] == "host"
        assert not reporting.done()
        assert (await reporting)["notes"] == ["the kernel's log: no answer within 0.2 s"]
        answer.set()
        await product.stop()

    asyncio.run(main())


@in_virtual_time
async def test_nothing_waits_for_a_disk_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = await started(tmp_path)
    threads: dict[str, threading.Thread] = {}

    def noting(name: str, function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            threads[name] = threading.current_thread()
            return function(*arguments)

        return run

    for name in ("kernel_lines", "daemon_lines", "users", "host_names"):
        monkeypatch.setattr(product.archive, name, noting(name, getattr(product.archive, name)))
    for name in ("_versions", "_journals", "_redacted"):
        monkeypatch.setattr(support, name, noting(name, getattr(support, name)))
    await report(product)
    assert len(threads) == 7
    assert threading.main_thread() not in threads.values()
    await product.stop()


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"name": Variant("b", True)}, "'name': there is no such option here. Did you mean names?"),
        ({"names": Variant("s", "yes")}, "names: a boolean (b) is expected, not type 's'."),
    ],
)
@in_virtual_time
async def test_wrong_options(tmp_path: Path, options: dict[str, Variant], mistake: str) -> None:
    product = await started(tmp_path)
    with pytest.raises(RemoteError) as caught:
        await product.call("Report", "a{sv}", options)
    assert (caught.value.name, caught.value.message) == ("org.freedesktop.DBus.Error.InvalidArgs", mistake)
    await product.stop()
