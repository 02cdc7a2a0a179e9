"""Machines from public sources: what status, plan and doctor say of each, word for word.

`GPUHANDOFF_GOLDEN=write` writes the files anew; then they want reviewing, as nobody else does.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuhandoff.simulation.clock import run
from tests.support import fixture_machines as fixtures

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


@pytest.mark.parametrize("name", fixtures.names())
def test_what_is_said_of_a_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    found = run(fixtures.texts(fixtures.read(name), tmp_path))
    text = "".join(f"$ gpuhandoff {command}\n{said}\n" for command, said in found.items())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GPUHANDOFF_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", fixtures.names())
def test_every_machine_names_its_sources(name: str) -> None:
    fixture = fixtures.read(name)
    assert fixture.title
    assert fixture.sources
    assert any(one.startswith("made up") for one in fixture.sources)


def test_the_machines_that_the_plan_of_the_project_names() -> None:
    assert set(fixtures.names()) >= {
        "ryzen-apu-rtx-4070", "intel-igpu-rx-6800", "single-rx-7900-xtx", "single-rtx-5090", "two-rtx-3060",
        "laptop-optimus", "shared-group",
    }  # fmt: skip
