"""A bus and a daemon for each test of a desktop, and a folder for its pictures and logs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.desktop.daemon import SimulatedDaemon, simulated_daemon
from tests.support.bus import PrivateBus, private_bus


@pytest.fixture
def system_bus() -> Iterator[PrivateBus]:
    with private_bus() as running:
        yield running


@pytest_asyncio.fixture
async def daemon(system_bus: PrivateBus) -> AsyncIterator[SimulatedDaemon]:
    """Not started yet."""
    async with simulated_daemon(system_bus) as one:
        yield one


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures go: the folder that GPUHANDOFF_PICTURES names, else one that nobody keeps."""
    given = os.environ.get("GPUHANDOFF_PICTURES")
    folder = Path(given) if given else tmp_path / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
