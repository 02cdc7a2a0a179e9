"""Notices a guest that takes a card, or lets it go, without an event: through a device node of its own.

libvirt gives QEMU a private /dev, whose nodes are other inodes than the host's: of what is opened there inotify hears
nothing, and attach-device and detach-device call no hook (platform.md 1d). The kernel counts it all the same: vfio-pci
enables a function when a guest opens it and disables it when the guest closes it (vfio_pci_core_enable, _disable), and
`enable` tells how often a function has been, without a lock and without waking it. That is read while a card is away, and
only when it changes is looked at who has the card.
"""

from __future__ import annotations

import asyncio

from gpuhandoff.host import Host
from gpuhandoff.model.address import PciAddress
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Jobs
from gpuhandoff.service.watches import Watches
from gpuhandoff.transaction.record import Record

PAUSE = 5.0
"""Seconds between reads."""


class Presence:
    """Reads, for every GPU that was handed off and that no job is at work on, whether a guest has opened it."""

    def __init__(self, host: Host, fleet: Fleet, jobs: Jobs) -> None:
        self._host = host
        self._fleet = fleet
        self._jobs = jobs
        self._watches = Watches("presence")

    def look(self, address: PciAddress, record: Record | None) -> None:
        """Watch a GPU while it is away; called whenever anything about it, or its journal, has changed."""
        if record is None or not record.complete or self._jobs.running(address) is not None:
            self._watches.end(address)
        else:
            self._watches.start(address, "", lambda: self._follow(address))

    async def stop(self) -> None:
        """Watch no longer."""
        await self._watches.stop()

    async def _follow(self, address: PciAddress) -> None:
        """Have the machine looked at after every change, and once more. It begins as after a change.

        A guest opens its group's node before the function and closes it after it: the first look may come in between.
        """
        seen, changed = self._counts(address), True
        while True:
            await asyncio.sleep(PAUSE)
            now = self._counts(address)
            if changed or now != seen:
                self._fleet.look_soon()
            seen, changed = now, now != seen

    def _counts(self, address: PciAddress) -> tuple[str, ...]:
        gpu = self._fleet.world.gpu(address)
        return tuple(self._count(function.address) for function in gpu.functions) if gpu is not None else ()

    def _count(self, function: PciAddress) -> str:
        try:
            return self._host.kernel.read(f"{function.sysfs}/enable")
        except OSError:
            return ""  # it has left the bus, which has an event
