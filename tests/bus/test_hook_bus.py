"""The libvirt hook with the real busctl: without a bus, without a daemon, and with the real one over a simulated machine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from gpuhandoff import names
from tests.support.bus import PATIENCE, PrivateBus, private_bus
from tests.support.domains import CARD, domain_xml
from tests.support.hook import GPU, HOOK, OPERATIONS, SHELLS, SIZES, WITHOUT_GPU, Ended, Hook, known


@pytest.fixture(params=SHELLS)
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Hook:
    """One with the real busctl."""
    one = Hook(request.param, tmp_path)
    one.patterns.write_text(known())
    return one


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket where a bus should be, which notices whoever comes."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "bus"))
        one.listen()
        one.settimeout(0.0)
        yield one


def test_nobody_comes_to_the_bus_for_guests_without_our_gpu(real: Hook, listener: socket.socket, tmp_path: Path) -> None:
    real.environment |= {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path / 'bus'}", "GPUHANDOFF_HOOK_TIMEOUT": "1"}
    for operation in OPERATIONS:
        assert real(operation, WITHOUT_GPU).status == 0
    with pytest.raises(BlockingIOError):
        listener.accept()
    process = subprocess.Popen(
        [real.shell, HOOK, "win11", "prepare", "begin", "-"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=real.environment,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(domain_xml().encode())
    process.stdin.close()
    listener.settimeout(PATIENCE)
    listener.accept()[0].close()  # for one with our GPU somebody does
    assert process.wait(PATIENCE) == 1
    assert process.stderr is not None
    process.stderr.close()


def test_without_a_bus(real: Hook, tmp_path: Path) -> None:
    real.environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={tmp_path / 'absent'}"
    assert real("reconnect", domain_xml()).status == 0
    ended = real("prepare", domain_xml())
    assert ended.status == 1
    assert ended.err.startswith("gpuhandoff: the system bus cannot be reached for win11: ")


def test_without_a_daemon(real: Hook, bus: PrivateBus) -> None:
    real.environment["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
    for padding in (0, 200_000):
        ended = real("prepare", domain_xml(padding=padding))
        assert ended.status == 1
        assert ended.err.startswith("gpuhandoff: gpuhandoffd, which has to make the GPU ready for win11, is not running and")
        assert ended.err.count("\n") == 1
        for operation in ("started", "release", "reconnect"):
            assert real(operation, domain_xml(padding=padding)).status == 0


@asynccontextmanager
async def simulated(hook: Hook) -> AsyncIterator[PrivateBus]:
    """Have the daemon over a simulated machine, and the hook on its bus."""
    with private_bus() as bus:
        hook.environment["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gpuhandoff", "--simulate", "igpu-dgpu",
            env=bus.environment(), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert daemon.stderr is not None
            while b"ready:" not in await asyncio.wait_for(daemon.stderr.readline(), PATIENCE):
                pass
            reading = asyncio.ensure_future(daemon.stderr.read())
            yield bus
        finally:
            daemon.terminate()
            await daemon.wait()
            await reading


def state(bus: PrivateBus) -> str:
    """Return the GPU's state as busctl tells it."""
    path = names.GPU_PATH_PREFIX + "0000_01_00_0"
    words = ("busctl", "--system", "get-property", names.BUS_NAME, path, names.GPU_INTERFACE, "State")
    return subprocess.run(words, env=bus.environment(), capture_output=True, text=True, check=True).stdout.split('"')[1]


async def test_from_prepare_to_release_with_the_real_daemon(real: Hook) -> None:
    async with simulated(real) as bus:
        for size in (0, *SIZES):
            xml = domain_xml(padding=size)
            assert await asyncio.to_thread(real, "prepare", xml) == Ended(0, "", ""), size
            assert await asyncio.to_thread(state, bus) == "detached"
            for operation in ("start", "started", "reconnect", "stopped"):
                assert await asyncio.to_thread(real, operation, xml) == Ended(0, "", "")
            assert await asyncio.to_thread(real, "release", xml) == Ended(0, "", "")
            assert await asyncio.to_thread(state, bus) == "host"


async def test_a_guest_whose_name_looks_like_an_option(real: Hook) -> None:
    async with simulated(real) as bus:
        for size in (0, SIZES[-1]):
            xml = domain_xml(name="-win", padding=size)
            assert await asyncio.to_thread(partial(real, guest="-win"), "prepare", xml) == Ended(0, "", "")
            assert await asyncio.to_thread(state, bus) == "detached"
            assert await asyncio.to_thread(partial(real, guest="-win"), "release", xml) == Ended(0, "", "")
            assert await asyncio.to_thread(state, bus) == "host"


async def test_refusals_of_the_real_daemon(real: Hook) -> None:
    async with simulated(real) as bus:
        ended = await asyncio.to_thread(real, "prepare", domain_xml(CARD[:1]))
        assert ended == Ended(
            1,
            "",
            f"gpuhandoff: {GPU} (NVIDIA AD104 [GeForce RTX 4070]) has 2 functions that move together; the domain lacks "
            "0000:01:00.1. Add a hostdev for each of them.\n",
        )
        large = await asyncio.to_thread(real, "prepare", domain_xml(padding=1_040_000) + "<!--" + "\n" * 20_000 + "-->")
        assert (large.status, "at most 1024 KiB are read" in large.err) == (1, True)
        assert (await asyncio.to_thread(real, "prepare", domain_xml())).status == 0
        other = await asyncio.to_thread(lambda: real("prepare", domain_xml(name="win10"), guest="win10"))
        assert (other.status, other.err) == (
            1,
            f"gpuhandoff: {GPU} (NVIDIA AD104 [GeForce RTX 4070]) is lent to win11. Shut that guest down first.\n",
        )
        assert (await asyncio.to_thread(lambda: real("release", domain_xml(name="win10"), guest="win10"))).status == 0
        assert await asyncio.to_thread(state, bus) == "detached"
        restored = await asyncio.to_thread(real, "restore", domain_xml())
        assert (restored.status, "can be neither saved nor moved to another host" in restored.err) == (1, True)
