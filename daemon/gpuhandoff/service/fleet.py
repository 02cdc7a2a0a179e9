"""The GPUs as they are now: surveyed, and kept up to date by kernel events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from gpuhandoff.host import Host, Uevent
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.verdict import Verdict
from gpuhandoff.model.world import Function, Gpu, World
from gpuhandoff.names import MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.plan.layout import layout_of
from gpuhandoff.service.cards import Cards
from gpuhandoff.service.objects import ObjectTree
from gpuhandoff.service.shared import Shared
from gpuhandoff.survey import survey
from gpuhandoff.survey.nodes import group_nodes
from gpuhandoff.transaction.state import Standing

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds after a survey that failed."""


class Fleet:
    """Every GPU of the machine and where it stands."""

    def __init__(
        self,
        host: Host,
        tree: ObjectTree,
        services: Sequence[str],
        cards: Cards,
        surveyed: Callable[[World], None] = lambda _: None,
    ) -> None:
        self._host = host
        self._tree = tree
        self._services = tuple(services)
        self._cards = cards
        self._surveyed = surveyed
        self._world: World | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._stale = asyncio.Event()
        self._postponed = False
        """Whether something has happened while a job was at work, and since the last look."""
        self._moved: set[PciAddress] = set()
        """Functions whose driver changed since the look that is being made began: it may have read them before."""
        self._looks = Shared[World]()
        self._watches: dict[str, Callable[[], None]] = {}
        self._surveyor: asyncio.Task[None] | None = None

    @property
    def world(self) -> World:
        """The machine as last seen."""
        if self._world is None:
            raise RuntimeError("the first survey has not been made")
        return self._world

    def standings(self) -> list[tuple[PciAddress, Standing]]:
        """Return where every GPU is."""
        return self._cards.standings()

    def away(self) -> list[PciAddress]:
        """Return the GPUs that have an open journal."""
        return self._cards.away()

    def verdict(self, world: World, gpu: Gpu) -> Verdict:
        """Return whether a GPU will come back from a guest."""
        return self._cards.verdict(world, gpu)

    def use_services(self, services: Sequence[str]) -> None:
        """Look at these GPU services from now on (configuration reloaded)."""
        self._services = tuple(services)

    async def start(self) -> None:
        """Make the first survey and follow kernel events from before it on."""
        self._unsubscribe = self._host.uevents.subscribe(self._on_uevent)
        await self.survey()
        self._surveyor = asyncio.create_task(self._follow(), name="fleet")

    async def stop(self) -> None:
        """Stop following."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._watch_groups(set())
        if self._surveyor is not None:
            self._surveyor.cancel()
            await asyncio.gather(self._surveyor, return_exceptions=True)
        await self._looks.stop()

    async def survey(self, *, with_processes: bool = False, with_mappings: bool = True, same_people: bool = False) -> World:
        """Look at the whole machine and publish what changed; one look at a time: an older never replaces a newer.

        Whoever asks for the same before a look has begun shares it: nobody stands in line behind a crowd. With
        `same_people` sessions and units are those that were last seen.
        """

        async def look() -> World:
            self._stale.clear()
            self._postponed = False
            self._moved.clear()
            world = await survey(
                self._host,
                self._services,
                with_processes=with_processes,
                with_mappings=with_mappings,
                people=self._world if same_people else None,
            )
            return self._see(self._with_drivers(world, self._moved))

        return await self._looks.share((with_processes, with_mappings, same_people), look)

    def _see(self, world: World) -> World:
        gone = {gpu.address for gpu in self._world.gpus} - {gpu.address for gpu in world.gpus} if self._world else set()
        self._announce_drivers(world)
        self._world = world
        for address in gone:
            self._cards.withdraw(address)
        self._watch_groups({node for gpu in world.gpus if gpu.on_vfio for node in group_nodes(self._host, gpu)})
        for gpu in world.gpus:
            self._cards.publish(world, gpu)
        layout = layout_of(world)
        told = {"Gpus": [str(gpu.address) for gpu in world.gpus], "Layout": str(layout.kind), "LayoutReason": layout.reason}
        self._tree.update(MANAGER_PATH, MANAGER_INTERFACE, told)
        self._surveyed(world)
        return world

    async def look_again(self, *, same_people: bool = False) -> None:
        """Survey after something happened, quickly: nothing is decided upon it. One that fails changes no job's end.

        `same_people`: neither sessions nor units were touched since the last look, so they are not asked for again.
        """
        try:
            await self.survey(with_mappings=False, same_people=same_people)
        except (OSError, RemoteError) as error:
            log.warning("the survey failed, looking again in %g s: %s", PATIENCE, error)
            asyncio.get_running_loop().call_later(PATIENCE, self._stale.set)

    def look_soon(self) -> None:
        """Survey after something happened, as soon as no job is at work."""
        self._stale.set()

    def refresh(self, address: PciAddress) -> None:
        """Derive the state of one GPU again and publish what changed."""
        gpu = self.world.gpu(address)
        if gpu is not None:
            self._cards.publish(self.world, gpu)
        else:
            self._cards.tell(address)
        if self._postponed and not self._is_busy():
            self._stale.set()

    def refresh_all(self) -> None:
        """Publish all GPUs again: what is known of them, not they, has changed."""
        for gpu in self.world.gpus:
            self._cards.publish(self.world, gpu)

    def properties(self, gpu: Gpu) -> dict[str, object]:
        """Return a GPU's bus properties."""
        return self._cards.properties(self.world, gpu)

    def _watch_groups(self, nodes: set[str]) -> None:
        """Hear of virtual machines that take a GPU or let it go: the kernel has no uevent for that (see also `presence`)."""
        for node in set(self._watches) - nodes:
            self._watches.pop(node)()
        for node in nodes - set(self._watches):
            self._watches[node] = self._host.openings.watch(node, self.look_soon)
            self._stale.set()  # it may have been opened since it was looked at

    def _on_uevent(self, event: Uevent) -> None:
        if event.action in {"bind", "unbind"} and event.subsystem == "pci":
            self._on_driver(event.path.rpartition("/")[2])
        elif (event.action in {"add", "remove", "overflow"} and event.subsystem in {"pci", "drm", "vfio", ""}) or (
            event.action == "change" and event.subsystem == "drm"
        ):
            self._stale.set()

    def _on_driver(self, name: str) -> None:
        """A function of a GPU got or lost its driver, by us or by somebody else: read the link, it is the truth."""
        try:
            address = PciAddress.parse(name)
        except ValueError:
            return
        self._moved.add(address)
        gpu = self._world.gpu(address) if self._world is not None else None
        if gpu is None:  # not a card's, or one that the first look is just about to find
            if self._world is None:
                self._stale.set()
            return
        seen = self._with_drivers(self.world, {address})
        self._announce_drivers(seen)
        self._world = seen
        self.refresh(gpu.address)
        self._stale.set()

    def _with_drivers(self, world: World, moved: AbstractSet[PciAddress]) -> World:
        """Return the machine with the drivers that these functions have now."""

        def now(function: Function) -> Function:
            if function.address not in moved:
                return function
            return replace(function, driver=self._host.kernel.link(f"{function.address.sysfs}/driver"))

        return replace(
            world, gpus=tuple(replace(gpu, functions=tuple(now(one) for one in gpu.functions)) for gpu in world.gpus)
        )

    def _announce_drivers(self, seen: World) -> None:
        if self._world is None:
            return
        known = {function.address: function.driver for gpu in self._world.gpus for function in gpu.functions}
        for card, function in ((gpu, function) for gpu in seen.gpus for function in gpu.functions):
            before = known.get(function.address, function.driver)
            if before != function.driver:
                old, new = before or "", function.driver or ""
                fields = {"GPU": str(card.address)}
                log.info("%s: driver %s -> %s", function.address, old or "none", new or "none", extra=fields)
                self._tree.emit(MANAGER_PATH, MANAGER_INTERFACE, "DriverChanged", str(function.address), old, new)

    async def _follow(self) -> None:
        """Survey again after events; while a job is at work not before its end, when it surveys by itself."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            if self._is_busy():
                self._postponed = True
                continue
            try:
                await self.look_again()
            except Exception:  # a mistake of ours, or no memory: what comes later is to be seen all the same
                log.exception("the survey failed, looking again in %g s", PATIENCE)
                asyncio.get_running_loop().call_later(PATIENCE, self._stale.set)

    def _is_busy(self) -> bool:
        return any(self._cards.at_work(gpu.address) for gpu in self.world.gpus)
