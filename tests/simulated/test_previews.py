"""A plan as a person needs it: what ends, what is lost, what is asked for, how long, how undone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.plan.preview import UNDO
from gpuhandoff.simulation.clock import in_virtual_time
from gpuhandoff.simulation.scenarios import blackwell, igpu_dgpu, single_nvidia
from gpuhandoff.steps import make_steps
from tests.support.product import OPTIONS, Product

GPU = "0000:01:00.0"
STOP = {"stop-display": Variant("b", True)}


async def preview(product: Product, direction: str = "handoff", options: dict[str, Variant] = STOP) -> dict[str, Any]:
    """Return what Preview answers."""
    reply = await product.call("Preview", "ssa{sv}", GPU, direction, options)
    return {key: value.value for key, value in reply.items()}


@in_virtual_time
async def test_what_a_handoff_takes_from_the_person(tmp_path: Path) -> None:
    product = await Product(await single_nvidia(), tmp_path).start()
    told = await preview(product)
    assert told["sessions"] == ["alice on seat0"]
    assert told["programs"] == ["Firefox"]
    assert [one.partition(":")[0].partition(";")[0] for one in told["lost"]] == [
        "unsaved documents", "the clipboard", "Bluetooth audio",
        "what was started from the desktop in the background (tmux, nohup), unless its user lingers",
    ]  # fmt: skip
    assert told["asks"] == ["org.gpuhandoff.handoff-display"]
    assert told["desktop"] == "It ends: this card shows it to alice."
    assert (told["reset-verdict"], told["needed"]) == ("safe", True)
    assert (told["ended"], told["seconds"]) == ([], -1.0)
    await product.stop()


@in_virtual_time
async def test_where_nothing_ends_nothing_is_lost(tmp_path: Path) -> None:
    product = await Product(await igpu_dgpu(), tmp_path).start()
    told = await preview(product, options={})
    assert (told["sessions"], told["programs"], told["lost"]) == ([], [], [])
    assert told["asks"] == ["org.gpuhandoff.handoff"]
    await product.stop()


ALL = {**STOP, "holders": Variant("s", "terminate"), "accept-risk": Variant("b", True)}
"""Every consent."""


@in_virtual_time
async def test_what_is_asked_for_is_what_is_needed_and_what_is_allowed_beyond_that_is_named(tmp_path: Path) -> None:
    product = await Product(await igpu_dgpu(), tmp_path / "dual").start()
    told = await preview(product, options=ALL)
    assert (told["asks"], told["unneeded"]) == (["org.gpuhandoff.handoff"], ["stop-display", "holders", "accept-risk"])
    told = await preview(product, options={})
    assert (told["asks"], told["unneeded"]) == (["org.gpuhandoff.handoff"], [])
    product.machine.processes.spawn("ollama", uid=998, cgroup="/system.slice/ollama.service", opens=["/dev/nvidia0"])
    told = await preview(product, options=ALL)
    assert told["asks"] == ["org.gpuhandoff.handoff", "org.gpuhandoff.terminate-holders"]
    assert told["unneeded"] == ["stop-display", "accept-risk"]
    await product.stop()
    product = await Product(await single_nvidia(), tmp_path / "single").start()
    told = await preview(product, options=ALL)
    assert (told["asks"], told["unneeded"]) == (["org.gpuhandoff.handoff-display"], ["holders", "accept-risk"])
    await product.handoff(GPU)
    evict = {"holders": Variant("s", "terminate")}
    told = await preview(product, "reclaim", evict)
    assert (told["asks"], told["unneeded"]) == (["org.gpuhandoff.reclaim"], ["holders"])
    product.machine.start_guest(GPU)
    for ask in (lambda: preview(product, "reclaim", {}), lambda: product.call("Plan", "ssa{sv}", GPU, "reclaim", {})):
        with pytest.raises(RemoteError, match="is with a virtual machine") as caught:
            await ask()
        assert caught.value.name == "org.gpuhandoff.Error.InUse"
    told = await preview(product, "reclaim", evict)
    assert (told["asks"], told["unneeded"]) == (["org.gpuhandoff.reclaim", "org.gpuhandoff.evict-guest"], [])
    await product.stop()


@in_virtual_time
async def test_a_risk_is_asked_for_where_the_card_has_used_up_its_one_run(tmp_path: Path) -> None:
    product = await Product(await blackwell(), tmp_path).start()
    first = await preview(product, options=ALL)
    assert (first["reset-risk"], "accept-risk" in first["unneeded"]) == (False, True)
    await product.handoff(GPU)
    product.machine.start_guest(GPU)
    await asyncio.sleep(1)
    product.machine.stop_guest(GPU)
    await asyncio.sleep(1)
    await product.reclaim(GPU)
    await asyncio.sleep(1)
    again = await preview(product, options=ALL)
    assert (again["reset-risk"], again["unneeded"]) == (True, ["holders"])
    assert again["asks"] == ["org.gpuhandoff.handoff-display", "org.gpuhandoff.accept-risk"]
    await product.stop()


@in_virtual_time
async def test_programs_that_would_be_ended_are_named_with_whose_they_are(tmp_path: Path) -> None:
    machine = await igpu_dgpu()
    product = await Product(machine, tmp_path).start()
    machine.processes.spawn("ollama", uid=998, cgroup="/system.slice/ollama.service", opens=["/dev/nvidia0"])
    told = await preview(product, options={"holders": Variant("s", "terminate")})
    assert told["ended"] == ["Ollama, the service ollama"]
    assert "org.gpuhandoff.terminate-holders" in told["asks"]
    with pytest.raises(RemoteError, match="ollama"):
        await preview(product, options={})
    await product.stop()


@in_virtual_time
async def test_how_long_it_takes_is_what_it_took(tmp_path: Path) -> None:
    product = await Product(await single_nvidia(), tmp_path).start()
    await product.handoff(GPU)
    back = await preview(product, "reclaim", {})
    assert [one["does"].value for one in back["steps"]] == ["undo it"] * len(back["steps"])
    assert back["seconds"] == -1.0
    await product.reclaim(GPU)
    there = await preview(product, options=OPTIONS)
    steps = {one["step"].value: one for one in there["steps"]}
    assert steps["unload-driver"]["seconds"].value > 0
    assert there["seconds"] == pytest.approx(sum(one["seconds"].value for one in steps.values() if one["seconds"].value > 0))
    assert steps["stop-display"]["undo"].value.startswith("the display manager is started")
    await product.stop()


@in_virtual_time
async def test_a_direction_that_does_not_exist(tmp_path: Path) -> None:
    product = await Product(await igpu_dgpu(), tmp_path).start()
    with pytest.raises(RemoteError, match="direction: handoff or reclaim"):
        await preview(product, "sideways")
    await product.stop()


def test_every_step_says_how_it_is_undone() -> None:
    assert {*UNDO} == {*make_steps()} - {"release-functions"}


@in_virtual_time
async def test_holders_say_who_they_are_and_whether_they_leave(tmp_path: Path) -> None:
    machine = await single_nvidia()
    machine.tree.text(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nnvpd:x:120:120::/:/bin/false\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\nbroken\n",
    )
    product = await Product(machine, tmp_path).start()
    found = [{key: value.value for key, value in one.items()} for one in await product.call("Holders", "s", GPU)]
    who = {one["name"]: (one["who"], one["leaves"], one["user"]) for one in found}
    assert who["kwin_wayland"] == ("the desktop (KWin), in your session", True, "alice")
    assert who["nvidia-persistenced"] == ("NVIDIA's persistence daemon, the service nvidia-persistenced", True, "")
    assert who["systemd"][1]
    await product.stop()
