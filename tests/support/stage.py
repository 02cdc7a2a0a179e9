"""Everybody who may call: a real bus, the real polkitd with our policy, and sessions as logind would have them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbus_next import Message, MessageFlag

from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import Variant
from gpuhandoff.names import BUS_NAME, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.service.bus import connect
from gpuhandoff.service.bus.values import to_library
from gpuhandoff.service.daemon import Daemon, Setting
from gpuhandoff.simulation import hardware
from gpuhandoff.simulation.archive import SimulatedArchive
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.scenarios import KERNEL, NVIDIA_STACK, NVIDIA_VERSION, assemble, boot
from gpuhandoff.simulation.sessions import Login as Desktop
from tests.support.bus import PATIENCE, PrivateBus, private_bus
from tests.support.polkit import Login, real_polkit
from tests.support.product import Product
from tests.support.stranger import Contained, Person, Stranger

GPU = "0000:01:00.0"
USERS = {"root": 0, "active": 5, "inactive": 6, "remote": 7, "system": 8, "contained": 9}
"""Users that every Debian has; who of them sits where is said here. A system account is in no session.

The last is root in a container, whose user 0 is this user outside.
"""
SESSIONS = {"active": ("1", "seat0", True), "inactive": ("2", "seat0", False), "remote": ("3", "", True)}
DBUS = "org.freedesktop.DBus"


@dataclass(frozen=True, slots=True)
class Audience:
    """A bus, polkitd, and one connection of each."""

    bus: PrivateBus
    people: Mapping[str, Person]


@contextmanager
def audience(*, rules: str = "", agent: bool = False) -> Iterator[Audience]:
    """Have them all there, and an agent in the active user's session if wanted."""
    with private_bus() as bus:
        users = {**USERS, **({"agent": USERS["active"]} if agent else {})}
        sessions = {**SESSIONS, **({"agent": SESSIONS["active"]} if agent else {})}
        people = {name: _kind(name)(bus.address, uid=uid) for name, uid in users.items()}
        logins = [Login(people[name].pid, users[name], *where) for name, where in sessions.items()]
        try:
            with real_polkit(bus, rules=rules, logins=logins):
                yield Audience(bus, people)
        finally:
            for person in people.values():
                person.close()


async def desktop_of(uid: int) -> SimulatedMachine:
    """Return a machine with one card, which shows the desktop of this user."""
    above = hardware.port(1, 1)
    machine = assemble((above, *hardware.rtx_4070(above, 1, 14, boot_vga=True)), KERNEL, NVIDIA_VERSION)
    greeter = Desktop("sddm", 110, "kwin_wayland", (GPU,), kind="greeter")
    return await boot(machine, NVIDIA_STACK, (greeter, Desktop("somebody", uid, "kwin_wayland", (GPU,))))


class Stage:
    """The daemon over a simulated machine, in this process and on the audience's bus."""

    def __init__(self, audience: Audience, machine: SimulatedMachine, daemon: Daemon, directory: Path) -> None:
        self.audience = audience
        self.machine = machine
        self.daemon = daemon
        self._directory = directory

    async def call(self, who: str, message: Message) -> Message:
        """Call as one of the people and return the reply."""
        return await asyncio.to_thread(_exchange, self.audience.people[who], message)

    async def ask(self, who: str, member: str, signature: str = "", *body: Any, interactive: bool = False) -> Message:
        """Call the manager."""
        return await self.call(who, a_call(member, signature, *body, interactive=interactive))

    async def leave(self, message: Message) -> None:
        """Call, and be gone before the daemon, which runs in this very thread, has looked at it."""
        address = self.audience.bus.address
        with Stranger(address, uid=USERS["active"]) as hasty:
            hasty.send(message)
            name = hasty.name
        until = time.monotonic() + PATIENCE
        with Stranger(address) as other:
            while other.call(DBUS, "/", DBUS, "NameHasOwner", "s", [name]).body != [False]:
                assert time.monotonic() < until
        for _ in range(3):
            assert not (await self.ask("root", "Status")).error_name

    def journals(self) -> list[str]:
        """Return the journals that are open."""
        return sorted(path.name for path in self._directory.rglob("*.journal"))

    async def state(self) -> str:
        """Return where the card is."""
        return str((await self.ask("root", "Status")).body[0][GPU].value["state"].value)


def a_call(
    member: str,
    signature: str = "",
    *body: Any,
    path: str = MANAGER_PATH,
    interface: str = MANAGER_INTERFACE,
    interactive: bool = False,
) -> Message:
    """Return a call of the daemon; variants are ours."""
    return Message(
        destination=BUS_NAME,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=[to_library(value) for value in body],
        flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE,
    )


def options(**given: bool | str) -> dict[str, Variant]:
    """Return options; `stop_display` is stop-display."""
    return {key.replace("_", "-"): Variant("b" if isinstance(value, bool) else "s", value) for key, value in given.items()}


@asynccontextmanager
async def stage(
    audience: Audience, directory: Path, build: Callable[[], Awaitable[SimulatedMachine]]
) -> AsyncIterator[Stage]:
    """Have a daemon; systemd and logind are stand-ins, polkit is not."""
    machine = await build()
    buses = [await connect(audience.bus.address, descriptors=one) for one in (False, True, False)]
    await machine.systemd.attach(buses[0])
    await machine.logind.attach(buses[1])
    host = simulated_host(machine, buses[2])
    settings = Configuration(HostSettings(holder_grace=1))
    archive = SimulatedArchive(machine)
    daemon = Daemon(Setting(buses[2], host, directory / "run", lambda: settings, directory / "state", archive))
    await daemon.start()
    try:
        yield Stage(audience, machine, daemon, directory)
    finally:
        await daemon.stop()
        Product._close_descriptors(daemon)
        for bus in reversed(buses):
            await bus.close()


def _kind(name: str) -> type[Person]:
    return Contained if name == "contained" else Person


def _exchange(person: Person, message: Message) -> Message:
    serial = person.send(message)
    while (reply := person.receive()).reply_serial != serial:
        pass
    return reply
