"""gpuhandoff-session on real buses: what it hears and calls, what it ends, and the program as a whole."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gpuhandoff import names
from gpuhandoff.messages import Call, Reply, Signal, Variant
from gpuhandoff.service.bus import DBus, connect
from gpuhandoff_session.__main__ import main
from gpuhandoff_session.bus import GONE, TIMEOUT, CallError, Connection, Service, Typed
from gpuhandoff_session.desktops import Plasma
from gpuhandoff_session.events import Event
from tests.support.bus import PrivateBus, private_bus
from tests.support.notices import FakeNotifications

PATIENCE = 180.0
GPU, JOB = "/org/gpuhandoff/gpus/pci_0000_01_00_0", "/org/gpuhandoff/jobs/1"
ECHO = Service("org.example.Echo", "/org/example", "org.example.Echo")


@pytest.fixture
def session() -> Iterator[PrivateBus]:
    with private_bus(session=True) as running:
        yield running


@pytest_asyncio.fixture
async def echo(session: PrivateBus) -> AsyncIterator[DBus]:
    """A service that says what it is told, but for what it does not answer."""
    bus = await connect(session.address)

    async def answer(call: Call) -> Reply:
        if call.member == "Nothing":
            await asyncio.Event().wait()
        return Reply("a{sv}", call.body)

    bus.serve(answer)
    await bus.request_name(ECHO.name)
    yield bus
    await bus.close()


async def test_values_answers_silence_and_the_end_of_the_bus(session: PrivateBus, echo: DBus) -> None:
    one = await Connection.open(session.address)
    given = {"names": Typed("as", ["a", "b"]), "yes": Typed("b", True)}
    assert await one.call(ECHO, "Say", "a{sv}", given) == [{"names": ["a", "b"], "yes": True}]
    with pytest.raises(CallError) as caught:
        await one.call(ECHO, "Nothing", timeout=0.1)
    assert caught.value.name == TIMEOUT
    with pytest.raises(CallError) as caught:
        await one.call(Service("org.example.Nobody", "/", "org.example.Nobody"), "Say")
    assert caught.value.name == "org.freedesktop.DBus.Error.ServiceUnknown"
    assert await one.owner(ECHO.name) == echo.unique_name
    assert await one.owner("org.example.Nobody") == ""
    waiting = asyncio.create_task(one.call(ECHO, "Nothing", timeout=None))
    await asyncio.sleep(0)
    session.kill()
    with pytest.raises(CallError) as caught:
        await asyncio.wait_for(waiting, PATIENCE)
    assert caught.value.name == GONE
    with pytest.raises(CallError):
        await Connection.open(session.address)
    await one.close()


async def test_only_the_owner_of_the_name_is_heard(session: PrivateBus, echo: DBus) -> None:
    one, forger = await Connection.open(session.address), await connect(session.address)
    heard: asyncio.Queue[list[Any]] = asyncio.Queue()
    owners: asyncio.Queue[str] = asyncio.Queue()
    await one.watch(ECHO, lambda member, body: heard.put_nowait([member, *body]), owners.put_nowait)
    assert await owners.get() == echo.unique_name
    for bus, text in ((forger, "forged"), (echo, "real")):
        bus.emit(Signal(ECHO.path, ECHO.interface, "Said", "s", (text,)))
        await bus.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "NameHasOwner", "s", ("x",))
    assert await asyncio.wait_for(heard.get(), PATIENCE) == ["Said", "real"]
    await echo.close()
    assert await asyncio.wait_for(owners.get(), PATIENCE) == ""
    await forger.request_name(ECHO.name)
    assert await asyncio.wait_for(owners.get(), PATIENCE) == forger.unique_name
    assert heard.empty()
    await forger.close()
    await one.close()


HELPER = """
import asyncio, sys
from dbus_next import Message
from dbus_next.aio import MessageBus

async def main():
    bus = await MessageBus(bus_address=sys.argv[1]).connect()
    bus.add_message_handler(lambda one: Message.new_method_return(one) if one.member == "logout" else None)
    await bus.request_name("org.kde.Shutdown")
    print("there", flush=True)
    await bus.wait_for_disconnect()

asyncio.run(main())
"""
"""What plasma-shutdown is on the bus: it answers at once, and goes on by itself."""


async def test_a_plasma_that_is_to_stay_has_no_helper_left_that_would_end_it(session: PrivateBus) -> None:
    called: list[str] = []

    async def answer(call: Call) -> Reply:
        called.append(call.member)
        return Reply()

    ksmserver = await connect(session.address)
    ksmserver.serve(answer)
    await ksmserver.request_name("org.kde.ksmserver")
    helper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HELPER, session.address, stdout=asyncio.subprocess.PIPE
    )
    assert helper.stdout is not None
    assert await asyncio.wait_for(helper.stdout.readline(), PATIENCE) == b"there\n"
    one = await Connection.open(session.address)
    reported: list[Event] = []
    plasma = Plasma(one, reported.append)
    await plasma.leave()
    await plasma.stay()
    assert await asyncio.wait_for(helper.wait(), PATIENCE) == -15
    assert (called, reported) == (["resetLogout"], [])
    await one.close()
    await ksmserver.close()


class FakeDaemon:
    """Has one handoff, which waits for this user's desktop."""

    def __init__(self, bus: DBus) -> None:
        self.bus = bus
        self.called: list[tuple[str, ...]] = []
        self.changed = asyncio.Condition()

    @classmethod
    async def start(cls, address: str) -> FakeDaemon:
        daemon = cls(await connect(address))
        daemon.bus.serve(daemon._answer)
        await daemon.bus.request_name(names.BUS_NAME)
        return daemon

    async def until(self, *call: str) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: call in self.called), PATIENCE)

    def emit(self, member: str, signature: str, *body: Any) -> None:
        self.bus.emit(Signal(names.MANAGER_PATH, names.MANAGER_INTERFACE, member, signature, body))

    async def _answer(self, call: Call) -> Reply:
        async with self.changed:
            self.called.append((call.member, *(str(one) for one in call.body)))
            self.changed.notify_all()
        match call.member, call.body:
            case "Inhibit", _:
                return Reply("u", (1,))
            case "History", _:
                return Reply("aa{sv}", ([],))
            case "Preview", _:
                return Reply("a{sv}", ({"programs": Variant("as", ["Firefox"]), "more-programs": Variant("u", 2)},))
            case "GetAll", (names.GPU_INTERFACE,):
                shown = {"Job": Variant("o", JOB), "Name": Variant("s", "RTX 4070"), "Address": Variant("s", "0000:01:00.0")}
                return Reply("a{sv}", (shown,))
            case "GetAll", _:
                desktops = ["somebody", pwd.getpwuid(os.getuid()).pw_name]
                waits = time.time_ns() // 1000 + 600_000_000
                job = {
                    "Vm": Variant("s", "win11"),
                    "Desktops": Variant("as", desktops),
                    "DesktopsUntil": Variant("t", waits),
                }
                return Reply("a{sv}", ({**job, "ErrorMessage": Variant("s", "")},))
        return Reply()


@asynccontextmanager
async def started(session: PrivateBus, system: PrivateBus, state: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Have the program run."""
    where = {"DBUS_SESSION_BUS_ADDRESS": session.address, "XDG_STATE_HOME": str(state)}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gpuhandoff_session", "--countdown", "100", env=system.environment() | where
    )
    try:
        yield program
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def test_the_program_warns_refuses_for_a_person_and_ends_when_it_is_told(session: PrivateBus, tmp_path: Path) -> None:
    with private_bus() as system:
        daemon = await FakeDaemon.start(system.address)
        desktop = await connect(session.address)
        notifications = await FakeNotifications.start(desktop)
        async with started(session, system, tmp_path) as program:
            await daemon.until("History", "", "50")
            who = ("The desktop", "programs are to be closed, and the person asked", "session")
            assert ("Inhibit", *who) in daemon.called
            daemon.emit("PrepareForHandoff", "ob", GPU, True)
            warning = await asyncio.wait_for(notifications.until("Your desktop ends in"), PATIENCE)
            assert "What ends: Firefox and 2 more." in warning.body
            notifications.press("cancel")
            await daemon.until("Object", "it was cancelled in the countdown")
            program.terminate()
            assert await asyncio.wait_for(program.wait(), PATIENCE) == 0
        assert (tmp_path / "gpuhandoff/session.json").exists()
        await desktop.close()
        await daemon.bus.close()


async def test_on_a_login_screen_it_ends_at_once(session: PrivateBus, tmp_path: Path) -> None:
    """GDM 49's is shown by a user like any other."""
    with private_bus() as system:
        daemon, logind = await FakeDaemon.start(system.address), await connect(system.address)

        async def answer(call: Call) -> Reply:
            match call.member, call.body:
                case "GetUser", _:
                    return Reply("o", ("/org/freedesktop/login1/user/self",))
                case "GetAll", ("org.freedesktop.login1.User",):
                    return Reply("a{sv}", ({"Display": Variant("(so)", ("c1", "/org/freedesktop/login1/session/c1"))},))
            return Reply("a{sv}", ({"Class": Variant("s", "greeter")},))

        logind.serve(answer)
        await logind.request_name("org.freedesktop.login1")
        async with started(session, system, tmp_path) as program:
            assert await asyncio.wait_for(program.wait(), PATIENCE) == 0
        assert daemon.called == []
        await logind.close()
        await daemon.bus.close()


async def test_the_program_ends_with_its_bus(session: PrivateBus, tmp_path: Path) -> None:
    with private_bus() as system:
        daemon = await FakeDaemon.start(system.address)
        async with started(session, system, tmp_path) as program:
            await daemon.until("History", "", "50")
            session.kill()
            assert await asyncio.wait_for(program.wait(), PATIENCE) == 1
        await daemon.bus.close()


@pytest.mark.parametrize("words", [["--countdown", "601"], ["--countdown", "-1"], ["--countdown", "soon"], ["now"]])
def test_wrong_usage_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: gpuhandoff-session" in capsys.readouterr().err
