"""The parts put together: what the buses tell becomes events, what is decided becomes calls."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from gpuhandoff_session.aftermath import aftermath, all_told
from gpuhandoff_session.bus import CallError, Connection
from gpuhandoff_session.daemon import MANAGER, Daemon
from gpuhandoff_session.desktops import Desktop, find_desktop
from gpuhandoff_session.events import (
    Act,
    Announced,
    Choice,
    Deserted,
    Effect,
    Event,
    Finished,
    Object,
    Removed,
    Show,
    Tick,
    TooLate,
    Wake,
)
from gpuhandoff_session.farewell import Stage, State, step
from gpuhandoff_session.logins import wait_ended
from gpuhandoff_session.memory import Memory
from gpuhandoff_session.notifications import Notifications

LATE = 30.0
"""Seconds after which no notification server comes by itself any more: the bus may have to start one."""
LAST_WAIT = 8.0
"""Seconds that the end of the session may take from when we are told to end."""

REMEMBERED = 64
"""Jobs of which it is known that they have ended: more than can end while one is asked about."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a session is started with."""

    system: Connection
    session: Connection
    memory: Memory
    user: str
    countdown: float


class Session:
    """One desktop's."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._daemon = Daemon(setting.system)
        self._notifications = Notifications(setting.session, self._pressed)
        self._desktop: Desktop | None = None
        self._state = State()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._departing = False
        self._waits_for_server = True
        self._telling = asyncio.Lock()
        self._owner = ""
        """The daemon's unique name on the bus."""
        self._removed: deque[str] = deque(maxlen=REMEMBERED)
        """Jobs of this daemon that have ended."""

    async def run(self, stopping: asyncio.Event) -> bool:
        """Serve until told to stop; return whether that was why, and not that a bus is gone."""
        await self._notifications.start(self._tell_soon)
        await self._setting.system.watch(MANAGER, self._heard, self._on_daemon)
        late = asyncio.get_running_loop().call_later(LATE, self._give_up_waiting)
        stopped = asyncio.create_task(stopping.wait())
        try:
            waiting = {stopped, self._setting.system.lost, self._setting.session.lost}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                await self._depart()
            return stopped.done()
        finally:
            stopped.cancel()
            late.cancel()
            if self._timer is not None:
                self._timer.cancel()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, stopped, return_exceptions=True)

    async def _depart(self) -> None:
        """Let the handoff go on when the session has ended, not when its end has begun: we leave the bus with it."""
        self._departing = True
        if self._state.under_way:
            await wait_ended(self._setting.system, self._setting.user, timeout=LAST_WAIT)

    def dispatch(self, event: Event) -> None:
        """Take an event in."""
        if self._departing:
            return
        self._state, effects = step(self._state, event, asyncio.get_running_loop().time())
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Show(notice):
                self._notifications.show(notice)
            case Wake(at):
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_at(at, self.dispatch, Tick())
            case Object(job, why):
                self._soon(self._object(job, why))
            case Act.RELEASE:
                self._soon(self._daemon.release())
            case Act.WITHDRAW:
                self._soon(self._notifications.withdraw())
            case Act.LEAVE:
                self._soon(self._leave())
            case Act.STAY if self._desktop is not None:
                self._soon(self._desktop.stay())

    def _heard(self, member: str, body: list[Any]) -> None:
        match member, body:
            case "PrepareForHandoff", [str(gpu), True]:
                self._soon(self._announce(gpu))
            case "PrepareForHandoff", [_, False]:
                self._soon(self._daemon.inhibit())
            case "JobRemoved", [str(job), str(result)]:
                self._removed.append(job)
                self.dispatch(Removed(job, result))
                self._soon(self._finish(job, result))

    def _on_daemon(self, owner: str) -> None:
        self._owner = owner
        self._removed.clear()
        if owner:
            self._soon(self._arrive())
        else:
            self._daemon.forget()
            self.dispatch(Deserted())

    def _pressed(self, key: str) -> None:
        if key in {choice.value for choice in Choice}:
            self.dispatch(Choice(key))

    async def _arrive(self) -> None:
        await self._daemon.inhibit()
        await self._tell()

    async def _announce(self, gpu: str) -> None:
        daemon = self._owner
        handoff = await self._daemon.handoff(gpu)
        if handoff is None or self._setting.user not in handoff.desktops:
            return
        until = asyncio.get_running_loop().time() + handoff.wait
        programs, more = await self._daemon.programs(handoff)
        countdown = self._setting.countdown if await self._notifications.usable() else 0.0
        if daemon == self._owner and handoff.job not in self._removed:  # it may have been cancelled while we asked
            self.dispatch(Announced(handoff.job, handoff.card, handoff.vm, programs, more, until, countdown))

    async def _leave(self) -> None:
        if self._desktop is None:
            self._desktop = await find_desktop(self._setting.session, self.dispatch)
        if self._state.stage is Stage.LEAVING:  # the person may have changed their mind while we looked
            await self._desktop.leave()

    async def _finish(self, job: str, result: str) -> None:
        if self._state.under_way:
            self.dispatch(Finished(job, result, await self._daemon.message(job)))
        if not self._state.under_way:
            await self._tell()

    async def _object(self, job: str, why: str) -> None:
        try:
            await self._daemon.object(job, why)
        except CallError as error:
            log.warning("%s cannot be cancelled any more: %s", job, error.message)
            self.dispatch(TooLate(job))

    def _give_up_waiting(self) -> None:
        self._waits_for_server = False
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._owner:  # to ask would start it
            self._soon(self._tell())

    async def _tell(self) -> None:
        """Tell what has come to its end since a desktop was told last, by whichever of this user's desktops that was.

        We are started before the desktop: what cannot be shown yet is told when its notification server is there.
        """
        async with self._telling:
            moves = await self._daemon.history()
            told = self._setting.memory.load()
            notices, now_told = ((), all_told(moves)) if told is None else aftermath(moves, told)
            if notices and not await self._somebody_sees():
                return
            for notice in notices:
                self._notifications.add(notice)
                await self._notifications.settled()
            if now_told != told:
                self._setting.memory.save(now_told)

    async def _somebody_sees(self) -> bool:
        if self._waits_for_server and not await self._notifications.present():
            return False
        return await self._notifications.usable()

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else; what fails is one line in the log, and the handoff goes on as without us."""
        task = asyncio.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _guard(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (CallError, OSError) as error:
            log.warning("%s", error)
        except Exception:  # a mistake of ours, or of whoever answered: nothing else is to suffer from it
            log.exception("something could not be done")
