"""What tests of the pure parts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runner_bench import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("gpuhandoff.transaction.runner.PAUSE", 0)
    return Bench(tmp_path)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    return tmp_path
