"""What is left when a connection, a caller or the bus itself has gone: no descriptor, and nobody who waits."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tempfile
from pathlib import Path

import pytest
from dbus_next import Message

from gpuhandoff.messages import DISCONNECTED, Call, RemoteError, Reply, Signal
from gpuhandoff.service.bus import DBus, connect
from tests.support.bus import TEST_NAME, PrivateBus, private_bus
from tests.support.echo import INTERFACE, answer, ask

GIVER = "org.example.Giver"


async def giver_of(bus: PrivateBus, descriptor: int) -> DBus:
    """Have somebody on the bus who gives this descriptor to everybody who calls."""
    giver = await connect(bus.address, descriptors=True)
    await giver.request_name(GIVER)

    async def give(_: Call) -> Reply:
        return Reply("h", (descriptor,))

    giver.serve(give)
    return giver


async def test_a_descriptor_is_ours_and_not_inherited(bus: PrivateBus, client: DBus) -> None:
    reading, writing = os.pipe()
    giver = await giver_of(bus, writing)
    taken = await client.call_for_descriptor(GIVER, "/", INTERFACE, "Take")
    assert not os.get_inheritable(taken)
    os.write(taken, b"through the bus")
    assert os.read(reading, 100) == b"through the bus"
    os.close(taken)
    assert os.read(reading, 100) == b""  # nobody else, the giver included, has it open
    os.close(reading)
    await giver.close()


async def test_a_reply_without_a_descriptor_is_an_error(service: DBus, client: DBus) -> None:
    service.serve(answer)
    before = descriptors()
    for member in ("Who", "Busy"):
        with pytest.raises(RemoteError):
            await client.call_for_descriptor(TEST_NAME, "/", INTERFACE, member)
    assert descriptors() == before


async def test_a_descriptor_that_comes_too_late_is_closed(bus: PrivateBus, client: DBus) -> None:
    """Cancelled between the reply and the next turn of the loop: a sleep inhibitor must not stay for ever."""
    reading, writing = os.pipe()
    giver = await giver_of(bus, writing)
    taker = await connect(bus.address, descriptors=True)
    receive = taker._receive

    def receive_and_cancel(message: Message) -> bool:
        try:
            return receive(message)
        finally:
            waiting.cancel()

    taker._bus._user_message_handlers[:] = [receive_and_cancel]
    message = Message(destination=GIVER, path="/", interface=INTERFACE, member="Take")
    waiting = asyncio.create_task(taker.send(message, 5))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await taker.close()
    await giver.close()
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_connections_leave_nothing_behind(bus: PrivateBus) -> None:
    before = descriptors()
    for _ in range(20):
        connection = await connect(bus.address, descriptors=True)
        await connection.close()
    assert descriptors() == before


async def test_what_waits_ends_with_the_bus() -> None:
    with private_bus() as doomed:
        service, client = await connect(doomed.address), await connect(doomed.address)
        await service.request_name(TEST_NAME)
        service.serve(answer)
        waiting = asyncio.create_task(ask(client, "Never", timeout=60))
        closed = asyncio.create_task(service.wait_closed())
        await asyncio.sleep(0.05)
        doomed.kill()
        async with asyncio.timeout(5):
            with pytest.raises(RemoteError) as caught:
                await waiting
            await closed
            await client.wait_closed()
        assert caught.value.name == DISCONNECTED
        client.emit(Signal("/", INTERFACE, "Happened"))
        with pytest.raises(RemoteError) as caught:
            await ask(client, "Echo", "s", "anybody?")
        assert caught.value.name == DISCONNECTED
        await client.close()
        await service.close()


async def test_no_bus_is_told(tmp_path: Path) -> None:
    for address in (f"unix:path={tmp_path}/none", "nonsense"):
        with pytest.raises(RemoteError) as caught:
            await connect(address)
        assert caught.value.name == DISCONNECTED
    gc.collect()


async def test_a_bus_that_hangs_up_at_once_is_told() -> None:
    """dbus-next asks such a bus for ever, without letting anybody else run."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{directory}/socket")
        listening.listen()
        attempt = asyncio.create_task(connect(f"unix:path={directory}/socket"))
        await asyncio.sleep(0)
        accepted, _ = listening.accept()
        accepted.recv(100)
        accepted.close()
        async with asyncio.timeout(5):
            with pytest.raises(RemoteError) as caught:
                await attempt
        assert caught.value.name == DISCONNECTED


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
