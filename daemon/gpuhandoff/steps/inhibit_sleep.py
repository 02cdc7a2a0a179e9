"""The machine does not sleep while the GPU is away. A suspend in the middle of a bind is the worst case."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

from gpuhandoff.host import Host
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.plan import Json
from gpuhandoff.patience import outlast

WHAT = "sleep:handle-lid-switch"
"""Not `shutdown`: a person who shuts the machine down must be able to, and a reboot undoes everything."""

log = logging.getLogger(__name__)


class InhibitSleep:
    """Holds a logind block inhibitor: a descriptor that the service manager keeps from one daemon to the next.

    Where it is not kept it ends with the daemon, and the next one takes it again.
    """

    name = "inhibit-sleep"
    needs_gpu = False
    has_undo = True
    volatile = True

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Nothing is lost."""
        return {}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Take the inhibitor. Without a logind nobody puts the machine to sleep either."""
        gpu = str(arguments["gpu"])
        if self._find(host, gpu) is not None:
            return
        try:
            descriptor = await _taken(host.logins.inhibit(WHAT, "gpuhandoff", str(arguments["why"]), "block"))
        except RemoteError as error:
            log.warning("sleep cannot be inhibited, logind does not answer: %s", error.message)
            return
        self._held[gpu] = descriptor
        host.descriptors.keep(_stored_as(gpu), descriptor)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Let go of it."""
        gpu = str(arguments["gpu"])
        descriptor = self._find(host, gpu)
        host.descriptors.drop(_stored_as(gpu))
        if descriptor is not None:
            del self._held[gpu]
            os.close(descriptor)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether this daemon holds it."""
        return self._find(host, str(arguments["gpu"])) is not None

    def _find(self, host: Host, gpu: str) -> int | None:
        """Return the descriptor, be it this daemon's or inherited from the one before."""
        if gpu not in self._held:
            inherited = host.descriptors.inherited(_stored_as(gpu))
            if inherited is None:
                return None
            self._held[gpu] = inherited
        return self._held[gpu]


def _stored_as(gpu: str) -> str:
    return f"sleep-{gpu.replace(':', '-')}"


async def _taken(inhibit: Coroutine[Any, Any, int]) -> int:
    """Return the descriptor; cancelled meanwhile, close it once it is there: nobody else would."""
    asking = asyncio.ensure_future(inhibit)
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await outlast(asking)
        if asking.exception() is None:
            os.close(asking.result())
        raise
