"""What callers leave behind: nothing that grows with what they ask, and nothing of those who have gone."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from gpuhandoff import names
from gpuhandoff.messages import RemoteError, Unsubscribe, Variant
from gpuhandoff.names import JOB_PATH_PREFIX, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.service.inhibitors import PER_USER
from gpuhandoff.service.jobs import KEPT_OF_ONE_USER
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.loopback import LoopbackBus
from gpuhandoff.simulation.scenarios import SCENARIOS
from tests.support.product import Product

GPU = "0000:01:00.0"
DRY = {"dry-run": Variant("b", True)}
LEASE = {**DRY, "lease": Variant("b", True)}


async def started(directory: Path) -> Product:
    return await Product(await SCENARIOS["igpu-dgpu"](), directory).start()


async def ask(caller: LoopbackBus, member: str, signature: str, *body: object) -> object:
    reply = await caller.call(names.BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, member, signature, body)
    return reply[0] if reply else None


def test_ended_jobs_of_one_user_are_few(tmp_path: Path) -> None:
    """Each is an object on the bus for a minute: by the thousand they would be all memory."""

    async def main() -> None:
        product = await started(tmp_path)
        first = await product.client.call(names.BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Handoff", "sa{sv}", (GPU, DRY))
        stranger = product.broker.connect(uid=1001)
        for _ in range(KEPT_OF_ONE_USER * 3):
            last = await ask(stranger, "Handoff", "sa{sv}", GPU, DRY)
        manager = "org.freedesktop.DBus.ObjectManager"
        (shown,) = await stranger.call(names.BUS_NAME, names.ROOT_PATH, manager, "GetManagedObjects")
        jobs = {path for path in shown if path.startswith(JOB_PATH_PREFIX)}
        assert len(jobs) == KEPT_OF_ONE_USER + 1
        assert {first[0], last} <= jobs  # other people's stay
        await product.stop()

    run(main())


def test_a_caller_is_watched_once_however_often_it_asks(tmp_path: Path) -> None:
    async def main() -> None:
        product = await started(tmp_path)
        stranger = product.broker.connect(uid=1001)
        counts = []
        for _ in range(20):
            await ask(stranger, "Handoff", "sa{sv}", GPU, LEASE)
            counts.append(len(product.broker._subscriptions))
        assert len(set(counts)) == 1
        stranger.drop()
        await product.client.call(names.BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Status")
        assert len(product.broker._subscriptions) < counts[0]
        await product.stop()

    run(main())


@pytest.mark.parametrize("when", ["before it is watched", "after it is watched"])
@pytest.mark.parametrize("what", ["Inhibit", "Handoff"])
def test_who_leaves_in_that_very_moment_leaves_nothing(what: str, when: str, tmp_path: Path) -> None:
    """An inhibitor of somebody who has gone would block every handoff until the daemon is restarted."""

    async def main() -> None:
        product = await started(tmp_path)
        assert product.daemon is not None
        subscribed = len(product.broker._subscriptions)
        stranger = product.broker.connect(uid=1001)
        leases = product.daemon._leases
        watch = leases.on_departure

        async def on_departure(sender: str, callback: object) -> Unsubscribe:
            if when.startswith("before"):
                stranger.drop()
            unsubscribe = await watch(sender, callback)  # type: ignore[arg-type]
            stranger.drop()
            return unsubscribe

        leases.on_departure = on_departure  # type: ignore[method-assign]
        arguments = ("sss", "who", "why", "block") if what == "Inhibit" else ("sa{sv}", GPU, LEASE)
        with contextlib.suppress(RemoteError):
            await ask(stranger, what, *arguments)
        for _ in range(5):
            await product.status(GPU)
        properties = "org.freedesktop.DBus.Properties"
        body = (MANAGER_INTERFACE, "Inhibited")
        (inhibited,) = await product.client.call(names.BUS_NAME, MANAGER_PATH, properties, "Get", "ss", body)
        assert inhibited.value is False
        assert len(product.broker._subscriptions) == subscribed
        await product.stop()

    run(main())


def test_one_user_holds_no_more_inhibitors_with_more_connections(tmp_path: Path) -> None:
    async def main() -> None:
        product = await started(tmp_path)
        callers = [product.broker.connect(uid=1001) for _ in range(20)]
        taken = 0
        for number in range(PER_USER * 3):
            with contextlib.suppress(RemoteError):
                await ask(callers[number % 20], "Inhibit", "sss", "who", "why", "delay")
                taken += 1
        assert taken == PER_USER
        with pytest.raises(RemoteError, match="one user 32") as caught:
            await ask(callers[-1], "Inhibit", "sss", "who", "why", "delay")
        assert caught.value.name == "org.freedesktop.DBus.Error.LimitsExceeded"
        await product.call("Inhibit", "sss", "who", "why", "delay")
        await product.stop()

    run(main())


def test_a_crowd_that_asks_who_has_a_card_delays_nobody(tmp_path: Path) -> None:
    """Each answer takes a look at the whole machine; libvirt's hook would have to wait for all of them."""
    scenario, crowd = "igpu-dgpu", 200

    def looks(product: Product) -> int:
        return sum(one.target.endswith("ListSessions") for one in product.machine.faults.log)

    async def main() -> None:
        product = await Product(await SCENARIOS[scenario](), tmp_path).start()
        await asyncio.sleep(1)
        before = looks(product)
        strangers = [product.broker.connect(uid=1001) for _ in range(crowd)]
        asked = [asyncio.create_task(ask(one, "Holders", "s", GPU)) for one in strangers]
        await asyncio.sleep(0)
        await product.client.call(names.BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Handoff", "sa{sv}", (GPU, {}))
        answers = await asyncio.gather(*asked)
        assert len(answers) == crowd
        assert looks(product) - before < 10
        await product.stop()

    run(main())
