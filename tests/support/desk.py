"""A desktop with gpuhandoff-session before the real daemon, in one process and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.sessions import SimulatedSession
from gpuhandoff_session.memory import Memory
from gpuhandoff_session.service import Session, Setting
from tests.support.desktops import FakeGnome, FakePlasma
from tests.support.notices import NOTIFICATIONS, FakeNotifications
from tests.support.participants import ALICE, GPU, Participant, now
from tests.support.product import Product
from tests.support.wire import Wire

DESKTOPS: dict[str, type[FakePlasma | FakeGnome]] = {"plasma": FakePlasma, "gnome": FakeGnome}


class Desk:
    """Alice's desktop with its program, on the machine whose daemon may end it."""

    def __init__(self, product: Product, directory: Path) -> None:
        self.product = product
        self.memory = Memory(directory / "state/session.json")
        self.broker = LoopbackBroker()
        self.notifications = FakeNotifications(self.broker.connect(uid=ALICE))
        self.ended_at = 0.0
        self.session: Wire
        """Its program's connection to the bus of the session."""
        self._wires: list[Wire] = []
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[bool] | None = None
        self._later: list[asyncio.Task[None]] = []
        product.machine.sessions.on_removed.append(self._removed)

    async def log_in(
        self, kind: str = "", *, notifications: bool = True, activatable: bool = False
    ) -> FakePlasma | FakeGnome | None:
        """Begin a session, with the program that answers for it. The bus can start an `activatable` notification server."""
        self.broker = LoopbackBroker()
        if notifications:
            await self.start_notifications()
        system, self.session = self._wires = [Wire(one, ALICE) for one in (self.product.broker, self.broker)]
        if activatable:
            self.session.activatable[NOTIFICATIONS] = self.start_notifications
        desktop = await DESKTOPS[kind](self.broker, self.end).start(self.session) if kind else None
        self._stopping = asyncio.Event()
        setting = Setting(system.connection, self.session.connection, self.memory, "alice", 15.0)
        self._running = asyncio.create_task(self._run(Session(setting)))
        await asyncio.sleep(1)
        return desktop

    async def start_notifications(self) -> None:
        """Have a server from now on."""
        self.notifications = await FakeNotifications.start(self.broker.connect(uid=ALICE))

    def end(self) -> None:
        """graphical-session.target stops, and with it the program; a moment later the session has ended."""
        self._stopping.set()
        self._later.append(asyncio.create_task(self._end()))

    def kill(self) -> None:
        """The program dies."""
        for wire in self._wires:
            wire.cut()

    async def log_out(self) -> None:
        """Have the program end, and be gone."""
        self._stopping.set()
        if self._running is not None:
            await self._running

    def _removed(self, session: SimulatedSession) -> None:
        if session.login.uid == ALICE:
            self.ended_at = now()

    async def _run(self, session: Session) -> bool:
        try:
            return await session.run(self._stopping)
        finally:
            self.kill()

    async def _end(self) -> None:
        await asyncio.sleep(1)
        sessions = self.product.machine.sessions
        for session in list(sessions.sessions.values()):
            if session.login.uid == ALICE:
                await sessions.terminate(session)


@asynccontextmanager
async def desk(directory: Path, scenario: str = "single-nvidia", host: HostSettings | None = None) -> AsyncIterator[Desk]:
    settings = Configuration(host or HostSettings())
    product = await Product(await SCENARIOS[scenario](), directory / "run", settings, directory / "state").start()
    one = Desk(product, directory)
    yield one
    await one.log_out()
    await product.idle()
    if (await product.status(GPU))["state"] != "host":
        await product.reclaim(GPU)
    await product.stop()


async def ended(one: Desk, job: int = 1) -> tuple[str, str]:
    """Return how the job ended."""
    await one.product.idle()
    who = Participant(one.product, 0)
    who.job = f"/org/gpuhandoff/jobs/{job}"
    told = await who.job_properties()
    return told["Result"], told["ErrorMessage"]
