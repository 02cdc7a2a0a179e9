"""Sleep and shutdown: held off for a moment while a GPU moves, and never met in the middle of a move."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

from gpuhandoff.errors import WrongStateError
from gpuhandoff.host import Host
from gpuhandoff.messages import RemoteError, Unsubscribe
from gpuhandoff.service.jobs import Jobs

log = logging.getLogger(__name__)


class Power:
    """Holds a delay inhibitor while a job runs. When the machine is about to go, jobs are ended and nothing is begun.

    That a GPU is away holds sleep off by itself (the step inhibit-sleep). It does not hold off a shutdown, which needs
    no reclaim: nothing that a handoff changes survives it.
    """

    def __init__(self, host: Host, jobs: Jobs) -> None:
        self._host = host
        self._jobs = jobs
        self._going = ""
        self._stays = asyncio.Event()
        self._stays.set()
        self._holding: asyncio.Task[int] | None = None
        self._unsubscribe: list[Unsubscribe] = []

    async def start(self) -> None:
        """Listen to logind, if there is one."""
        with contextlib.suppress(RemoteError):
            self._unsubscribe.append(
                await self._host.logins.on_prepare("PrepareForSleep", lambda going: self._prepare("about to sleep", going))
            )
            self._unsubscribe.append(
                await self._host.logins.on_prepare("PrepareForShutdown", lambda going: self._prepare("shutting down", going))
            )
            self._unsubscribe.append(await self._host.logins.on_loss(lambda: self._prepare("", False)))

    async def stop(self) -> None:
        """Let go."""
        while self._unsubscribe:
            self._unsubscribe.pop()()
        holding = self._holding
        self._release()
        if holding is not None:
            await asyncio.gather(holding, return_exceptions=True)

    def refuse(self) -> None:
        """Raise WrongStateError when the machine is about to go."""
        if self._going:
            raise WrongStateError(
                f"The machine is {self._going}: no GPU is moved now. One that is away comes back with the next boot."
            )

    async def stays(self) -> None:
        """Wait while the machine is about to go."""
        await self._stays.wait()

    def look(self) -> None:
        """Hold sleep and shutdown off while any job runs; called when one starts or ends."""
        if self._jobs.any_running and self._holding is None and not self._going:
            self._holding = asyncio.create_task(self._inhibit(), name="delay sleep and shutdown")
        elif not self._jobs.any_running:
            self._release()

    def _prepare(self, what: str, going: bool) -> None:  # noqa: FBT001  (the signal's own argument)
        self._going = what if going else ""
        if not going:
            self._stays.set()
        else:
            self._stays.clear()
            log.info("the machine is %s", what)
            self._jobs.cancel_all()

    async def _inhibit(self) -> int:
        return await self._host.logins.inhibit("sleep:shutdown", "gpuhandoff", "A GPU is being moved", "delay")

    def _release(self) -> None:
        if self._holding is not None:
            self._holding.add_done_callback(_close)
            self._holding = None


def _close(holding: asyncio.Task[int]) -> None:
    if not holding.cancelled() and holding.exception() is None:
        os.close(holding.result())
