"""The widget's QML by Qt's own tools: its linter, and its test runner without a screen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.desktop.daemon import SimulatedDaemon, bind_of
from tests.desktop.enclosure import run_enclosed
from tests.desktop.plasma import assembled
from tests.desktop.plasma_root import plasma_root
from tests.support.bus import REPOSITORY, PrivateBus

TOOLS = "/usr/lib/qt6/bin"
UI = "contents/ui"


@pytest_asyncio.fixture
async def widget(tmp_path: Path) -> Path:
    return await assembled(tmp_path)


async def test_the_linter_has_nothing_to_say(widget: Path) -> None:
    sources = {path.name: path.read_text().splitlines() for path in sorted((widget / UI).glob("*.qml"))}
    # i18n and its kin are in no module: Plasma puts them around every widget.
    options = ("--max-warnings", "0", "--unqualified", "info", "--json", "-")
    program = (f"{TOOLS}/qmllint", *options, *(f"/widget/{UI}/{name}" for name in sources))
    status, printed = await run_enclosed(plasma_root(), program, binds=[f"{widget}:/widget"])
    files = json.loads(printed)["files"]
    assert {Path(one["filename"]).name for one in files} == set(sources)
    remarks = [(Path(one["filename"]).name, remark) for one in files for remark in one["warnings"]]
    assert [f"{name}:{one['line']}: {one['message']}" for name, one in remarks if not _about_i18n(sources[name], one)] == []
    assert status == 0


def _about_i18n(lines: list[str], remark: dict[str, Any]) -> bool:
    begins = lines[remark["line"] - 1][remark["column"] - 1 :] if remark.get("line") else ""
    return remark["id"] == "unqualified" and re.match(r"i18n[cp]{0,2}\(", begins) is not None


async def test_the_logic_without_a_daemon(widget: Path, system_bus: PrivateBus) -> None:
    await _run("tst_plan.qml", widget, system_bus, at_least=25)


async def test_the_parts_on_a_bus_of_the_tests_own(widget: Path, system_bus: PrivateBus) -> None:
    printed = await _run("tst_card.qml", widget, system_bus, at_least=18, options=("-import", "/desktop/qml/bus"))
    assert _complaints(printed) == []


async def test_the_parts_against_the_daemon(widget: Path, system_bus: PrivateBus, daemon: SimulatedDaemon) -> None:
    await daemon.start("igpu-dgpu")
    printed = await _run("tst_manager.qml", widget, system_bus, at_least=5)
    assert _complaints(printed) == []


def _complaints(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith(("QWARN", "QCRITICAL"))]


async def _run(file: str, widget: Path, bus: PrivateBus, *, at_least: int, options: tuple[str, ...] = ()) -> str:
    binds = (f"{REPOSITORY / 'tests/desktop'}:/desktop", f"{widget}:/widget", bind_of(bus))
    environment = {
        "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
        "QT_QPA_PLATFORM": "offscreen",
        "QT_QUICK_BACKEND": "software",
        "QT_FORCE_STDERR_LOGGING": "1",
    }
    program = (f"{TOOLS}/qmltestrunner", *options, "-input", f"/desktop/qml/{file}")
    status, printed = await run_enclosed(plasma_root(), program, binds=binds, environment=environment)
    totals = re.search(r"^Totals: (\d+) passed, (\d+) failed, (\d+) skipped", printed, re.MULTILINE)
    assert totals is not None, printed
    assert (status, totals[2], totals[3]) == (0, "0", "0"), printed
    assert int(totals[1]) >= at_least + 2  # the runner counts its own beginning and end
    return printed
