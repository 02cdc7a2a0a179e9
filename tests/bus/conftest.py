"""One private system bus for all tests of this directory; a connection to it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from gpuhandoff.service.bus import DBus, connect
from tests.support.bus import TEST_NAME, PrivateBus, private_bus
from tests.support.command_daemon import Command, FakeDaemon, fake_daemon


@pytest.fixture(scope="session")
def bus() -> Iterator[PrivateBus]:
    with private_bus() as running:
        yield running


@pytest_asyncio.fixture
async def service(bus: PrivateBus) -> AsyncIterator[DBus]:
    """The connection under test; it has the name that everybody may call."""
    connection = await connect(bus.address)
    await connection.request_name(TEST_NAME)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def client(bus: PrivateBus) -> AsyncIterator[DBus]:
    connection = await connect(bus.address)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    """A daemon that answers as it is told, on a bus of its own."""
    async with fake_daemon() as running:
        yield running


@pytest.fixture
def command(daemon: FakeDaemon) -> Command:
    """The command, which finds that daemon."""
    return Command(daemon.address)
