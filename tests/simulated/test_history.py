"""History of the whole product: what was done, refused, undone, cut short, and how it looks after deaths and reboots."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from gpuhandoff.history.file import NAME
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.faults import before as just_before
from gpuhandoff.simulation.faults import refuse
from gpuhandoff.simulation.scenarios import twin
from tests.support.history_told import GPU, history, kept, started, told


@in_virtual_time
async def test_there_and_back_with_all_its_steps(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU, vm=Variant("s", "win11"))
    await product.reclaim(GPU)
    back, out = await history(product)
    assert (out["gpu"], out["name"], out["vm"], out["uid"]) == (GPU, "NVIDIA AD104 [GeForce RTX 4070]", "win11", 1000)
    assert (out["operation"], out["why"], out["outcome"], out["back"]) == ("handoff", "asked", "done", "reclaimed")
    assert (back["operation"], back["outcome"], back["back"], back["message"]) == ("reclaim", "done", "", "")
    steps = [name for name, _, _ in out["steps"]]
    assert steps[0] == "inhibit-sleep"
    assert {"stop-display", "unload-driver", "bind-vfio"} <= set(steps)
    assert [name for name, _, _ in back["steps"]] == steps[::-1]
    assert {phase for _, phase, _ in out["steps"]} == {"done"}
    assert {phase for _, phase, _ in back["steps"]} == {"undone"}
    seconds = {name: taken for name, _, taken in out["steps"]}
    assert seconds["unload-driver"] > 0.1
    assert sum(seconds.values()) == pytest.approx(out["seconds"], abs=0.02)
    assert out["began"] < back["began"]
    await product.stop()


@in_virtual_time
async def test_a_move_is_on_the_disk_before_its_first_step(tmp_path: Path) -> None:
    product = await started(tmp_path)
    seen: list[list[str]] = []
    look = just_before(lambda: seen.append([move.outcome for move in kept(tmp_path)]))
    product.machine.faults.set(look, target="Inhibit", detail="block")
    await product.handoff(GPU)
    assert seen == [[""]]
    product.machine.faults.set(look, kind="write")
    await product.reclaim(GPU)
    assert seen[1:] == [["", "done", ""]]
    await product.stop()
    assert [move.outcome for move in kept(tmp_path)] == ["", "done", "", "done"]


@in_virtual_time
async def test_a_rollback_tells_what_failed_and_what_was_undone(tmp_path: Path) -> None:
    product = await started(tmp_path)
    product.machine.faults.set(refuse(errno.EIO), kind="write", target="power/control")
    with pytest.raises(RemoteError) as caught:
        await product.handoff(GPU)
    (move,) = await history(product)
    assert (move["outcome"], move["message"]) == ("rolled-back", caught.value.message)
    phases = [(name, phase) for name, phase, _ in move["steps"]]
    assert ("bind-vfio", "apply") in phases
    assert phases.index(("unload-driver", "done")) < phases.index(("bind-vfio", "apply"))
    assert phases[-1] == ("inhibit-sleep", "undone")
    await product.stop()


@in_virtual_time
async def test_a_cancelled_handoff(tmp_path: Path) -> None:
    product = await started(tmp_path)

    def cancel() -> None:
        job = product.jobs.running(PciAddress.parse(GPU))
        assert job is not None
        product.jobs.cancel(job)

    product.machine.faults.set(just_before(cancel), nth=20)
    with pytest.raises(RemoteError):
        await product.handoff(GPU)
    assert await told(product) == [("handoff", "asked", "cancelled", "")]
    await product.stop()


@in_virtual_time
async def test_a_refusal_is_one_line_and_the_same_one_is_not_repeated(tmp_path: Path) -> None:
    product = await started(tmp_path)
    for _ in range(3):
        with pytest.raises(RemoteError, match="ends"):
            await product.call("Handoff", "sa{sv}", GPU, {})
    (move,) = await history(product)
    assert (move["outcome"], move["steps"], move["seconds"]) == ("refused", [], 0.0)
    assert "the graphical session of alice ends" in move["message"]
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {"vm": Variant("s", "other")})
    assert len(await history(product)) == 2
    await product.stop()
    assert [one.outcome for one in kept(tmp_path)] == ["refused", "refused"]


@in_virtual_time
async def test_what_is_no_move(tmp_path: Path) -> None:
    product = await started(tmp_path)
    await product.handoff(GPU, **{"dry-run": Variant("b", True)})
    await product.call("Plan", "ssa{sv}", GPU, "handoff", {"stop-display": Variant("b", True)})
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {"dry-run": Variant("b", True)})
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", "0000:77:00.0", {})
    product.machine.polkit.deny("org.gpuhandoff.handoff")
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {})
    assert await history(product) == []
    await product.stop()
    assert not (tmp_path / "state" / NAME).exists()


@in_virtual_time
async def test_a_lease_that_ended(tmp_path: Path) -> None:
    product = await started(tmp_path)
    borrower = product.broker.connect(uid=1001)
    options = {"stop-display": Variant("b", True), "lease": Variant("b", True)}
    await borrower.call(
        "org.gpuhandoff.Manager", "/org/gpuhandoff/Manager", "org.gpuhandoff.Manager", "Handoff", "sa{sv}", (GPU, options)
    )
    await borrower.close()
    await asyncio.sleep(0.1)
    await product.idle()
    assert await told(product) == [("handoff", "asked", "done", "reclaimed"), ("reclaim", "lease-ended", "done", "")]
    assert [move["uid"] for move in await history(product)] == [0, 1001]
    await product.stop()


@in_virtual_time
async def test_one_gpu_or_all_and_how_many(tmp_path: Path) -> None:
    product = await started(tmp_path, await twin())
    other = "0000:02:00.0"
    await product.handoff(other)
    with pytest.raises(RemoteError):
        await product.call("Handoff", "sa{sv}", GPU, {})
    await product.reclaim(other)
    assert [move["gpu"] for move in await history(product)] == [other, GPU, other]
    assert [move["operation"] for move in await history(product, "02:00.1")] == ["reclaim", "handoff"]
    assert [move["gpu"] for move in await history(product, "", 2)] == [other, GPU]
    assert await history(product, "0000:77:00.0") == []
    with pytest.raises(RemoteError, match="not a PCI address"):
        await history(product, "card")
    await product.stop()
