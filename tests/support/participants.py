"""Who takes part in a handoff that waits: clients that save, desktops that object, and when it began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpuhandoff import names
from gpuhandoff.config import Configuration, HostSettings
from gpuhandoff.messages import Match, Signal, Variant
from gpuhandoff.simulation.loopback import LoopbackBus
from gpuhandoff.simulation.scenarios import SCENARIOS
from tests.support.product import Product

GPU = "0000:01:00.0"
ALICE, BOB = 1000, 1001
CONSENT = {"stop-display": Variant("b", True), "wait": Variant("b", False)}
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
LATE = "org.gpuhandoff.Error.WrongState"


class Participant:
    """A program on the bus that hears what is told and calls what it likes."""

    def __init__(self, one: Product, uid: int) -> None:
        self.bus: LoopbackBus = one.broker.connect(uid=uid)
        self.job = names.JOB_PATH_PREFIX + "1"

    async def call(self, member: str, signature: str = "", *body: Any) -> Any:
        reply = await self.bus.call(
            names.BUS_NAME, names.MANAGER_PATH, names.MANAGER_INTERFACE, member, signature, body, timeout=3600
        )
        return reply[0] if reply else None

    async def inhibit(self, mode: str) -> int:
        return int(await self.call("Inhibit", "sss", "Editor", "it saves", mode))

    async def hear(self, act: Callable[[], None]) -> None:
        """Do something when a handoff begins."""
        begins = Match(names.MANAGER_INTERFACE, "PrepareForHandoff")
        await self.bus.subscribe(begins, lambda signal: act() if signal.body[1] else None)

    async def on_job(self, member: str, *body: Any) -> None:
        await self.bus.call(names.BUS_NAME, self.job, names.JOB_INTERFACE, member, "s" * len(body), body)

    async def job_properties(self) -> dict[str, Any]:
        properties = "org.freedesktop.DBus.Properties"
        (found,) = await self.bus.call(names.BUS_NAME, self.job, properties, "GetAll", "s", (names.JOB_INTERFACE,))
        return {name: variant.value for name, variant in found.items()}


async def product(directory: Path, *, delay: int = 5, session: int = 60) -> Product:
    configuration = Configuration(HostSettings(inhibit_delay=delay, session_delay=session))
    return await Product(await SCENARIOS["single-nvidia"](), directory, configuration).start()


def now() -> float:
    return asyncio.get_running_loop().time()


async def started(one: Product, uid: int = ALICE) -> float:
    """Ask for a handoff that ends the desktop, and return when that was."""
    who = Participant(one, uid)
    at = now()
    await who.call("Handoff", "sa{sv}", GPU, CONSENT)
    return at


async def first_step(one: Product) -> float:
    """Return when the first step begins."""
    begun = asyncio.get_running_loop().create_future()

    def progress(_: Signal) -> None:
        if not begun.done():
            begun.set_result(now())

    await one.client.subscribe(Match(names.MANAGER_INTERFACE, "Progress"), progress)
    return float(await begun)


async def end(one: Product) -> None:
    """Have the GPU back, and stop."""
    await one.idle()
    if (await one.status(GPU))["state"] != "host":
        await one.reclaim(GPU)
    await one.stop()
