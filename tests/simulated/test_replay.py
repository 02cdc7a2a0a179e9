"""The machine of a report is the machine that made it: surveyed again, it says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff.simulation.clock import in_virtual_time, run
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.replay import ReplayError, read_report, replay
from gpuhandoff.simulation.scenarios import SCENARIOS, single_nvidia
from gpuhandoff.simulation.snapshot import differences
from tests.support.product import Product

LEFT_ALONE = {"boot_id", "memory_total", "memory_available", "hugepages", "processes", "online_cpus"}
"""Of the machine, not of its GPUs."""


async def report(machine: SimulatedMachine, directory: Path) -> dict[str, Any]:
    """Return a machine's report."""
    product = await Product(machine, directory).start()
    document: dict[str, Any] = json.loads(await product.call("Report", "a{sv}", {}))
    await product.stop()
    return document


def plain(world: dict[str, Any]) -> dict[str, Any]:
    """Return what has to be the same: pids, start times and session numbers are not."""
    gpus = {}
    for gpu in world["gpus"]:
        holders = sorted(f"{one['process']['name']} {one['process']['uid']} {one['nodes']}" for one in gpu["holders"])
        gpus[gpu["address"]] = {**gpu, "holders": holders, "guest": None}
    sessions = sorted(f"{one['user']} {one['kind']} {one['type']}" for one in world["sessions"])
    modules = sorted(one["name"] for one in world["modules"])
    rest = {key: value for key, value in world.items() if key not in LEFT_ALONE}
    return {**rest, "gpus": gpus, "sessions": sessions, "modules": modules}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_survives_its_report(scenario: str, tmp_path: Path) -> None:
    async def body() -> None:
        first = await report(await SCENARIOS[scenario](), tmp_path / "first")
        again = await report(await replay(json.loads(json.dumps(first))), tmp_path / "again")
        assert differences(plain(first["machine"]), plain(again["machine"])) == []

    run(body())


@in_virtual_time
async def test_a_card_that_is_away_is_away_in_the_replay(tmp_path: Path) -> None:
    machine = await single_nvidia()
    product = await Product(machine, tmp_path / "first").start()
    await product.handoff("0000:01:00.0")
    document = json.loads(await product.call("Report", "a{sv}", {}))
    await product.stop()
    again = await Product(await replay(document), tmp_path / "again").start()
    assert (await again.status("0000:01:00.0"))["state"] == "detached"
    await again.reclaim("0000:01:00.0")
    assert (await again.status("0000:01:00.0"))["state"] == "host"
    await again.stop()


@in_virtual_time
async def test_a_replayed_card_can_be_lent_and_taken_back(tmp_path: Path) -> None:
    machine = await replay(await report(await single_nvidia(), tmp_path / "first"))
    product = await Product(machine, tmp_path / "again").start()
    before = machine.snapshot()
    await product.handoff("0000:01:00.0")
    machine.start_guest("0000:01:00.0")
    machine.stop_guest("0000:01:00.0")
    await product.reclaim("0000:01:00.0")
    assert differences(before, machine.snapshot()) == []
    await product.stop()


@in_virtual_time
async def test_a_report_is_read_as_the_command_writes_it(tmp_path: Path) -> None:
    document = await report(await single_nvidia(), tmp_path / "run")
    path = tmp_path / "report"
    path.write_text(f"gpuhandoff 0.1.0, report\n\nLatest moves\n  none {{}}\n\n{json.dumps(document, indent=1)}\n")
    assert read_report(path) == document


@pytest.mark.parametrize("text", ["", "no report", "{}", '{"machine": 1}', '{"machine": {"gpus": 1}}', "{" * 100_000])
def test_what_is_no_report_is_said_to_be_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ReplayError, match="is not a report"):
        read_report(path)
    with pytest.raises(ReplayError, match="cannot be read"):
        read_report(tmp_path / "absent")


def test_a_report_of_nonsense_is_said_to_be_that() -> None:
    with pytest.raises(ReplayError, match="no machine that makes sense"):
        run(replay({"machine": {"gpus": [{"address": "0000:01:00.0", "functions": [{}], "group": []}]}}))
