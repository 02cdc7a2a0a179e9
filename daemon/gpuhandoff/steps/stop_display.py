"""The desktop on the GPU ends: display manager, sessions, and compositors that outlive both."""

from __future__ import annotations

import contextlib
import logging

from gpuhandoff.errors import InUseError, RolledBackError
from gpuhandoff.host import Host, OpenNode
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.plan import Json
from gpuhandoff.model.roles import is_seat_service, shows_picture
from gpuhandoff.model.world import Process, Session
from gpuhandoff.steps.holders import end, follows, name_open, wait_free

STOP_TIMEOUT = 100.0
"""Seconds: longer than the units' own TimeoutStopSec (30 to 90 s), by which systemd kills what does not end."""
SESSION_TIMEOUT = 15.0
LEFTOVER_GRACE = 4.0
ROUNDS = 2
"""A wrapper may start a compositor again that was ended."""
START_TIMEOUT = 60.0

log = logging.getLogger(__name__)


class StopDisplay:
    """StopUnit rather than kill: every display manager has Restart=always (kernel.md 11)."""

    name = "stop-display"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember whether the display manager ran, and where the sessions' processes are."""
        name = str(arguments["display_manager"])
        unit = await host.units.unit(name) if name else None
        sessions = await _sessions(host, arguments)
        groups = {session.scope for session in sessions if session.scope}
        groups |= {f"user@{session.uid}.service" for session in sessions}
        holding = await host.processes.holding(list(arguments["nodes"]))
        return {
            "active": unit is not None and unit.is_active,
            "groups": sorted(groups),
            "compositors": [
                [one.process.pid, one.process.start_time]
                for one in holding
                if shows_picture(one.process.name, one.nodes) and _inside(one.process, groups)
            ],
        }

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Stop the display manager, end the sessions, end what of them still has the GPU open."""
        if saved["active"]:
            await self._stop(host, str(arguments["display_manager"]))
        await self._end_sessions(host, arguments)
        await self._end_leftovers(host, list(arguments["nodes"]), set(saved["groups"]))

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Start the display manager once, if it ran; its start limit may be used up (peers' pain 14 and 34).

        An apply that ran in part may have left a compositor without its session: a second one could show nothing beside it.
        """
        name = str(arguments["display_manager"])
        if not saved["active"]:
            return
        unit = await host.units.unit(name)
        if unit is not None and unit.active_state == "active":
            if unit.is_stopping:  # its stop still waits for another unit's: a start takes its place
                await host.units.start(name, timeout=START_TIMEOUT)
            return
        with contextlib.suppress(RemoteError):  # logind gone: all the more reason to start the display manager
            await self._terminate(host, arguments)
        holding = await host.processes.holding(list(arguments["nodes"]))
        await end(host, [p for one in holding if [(p := one.process).pid, p.start_time] in saved["compositors"]])
        await host.units.reset_failed(name)
        await host.units.start(name, timeout=START_TIMEOUT)
        unit = await host.units.unit(name)
        if unit is not None and not unit.is_active:
            raise RolledBackError(f"{name} does not run, although systemd says that it was started.")

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether the display manager is stopped."""
        name = str(arguments["display_manager"])
        unit = await host.units.unit(name) if name else None
        return unit is None or not unit.is_active

    async def _stop(self, host: Host, name: str) -> None:
        """Stop the display manager; while it runs no session is ended, as only its own start brings sessions back."""
        await host.units.stop(name, timeout=STOP_TIMEOUT)
        unit = await host.units.unit(name)
        if unit is not None and unit.active_state == "active":
            raise RolledBackError(f"{name} runs on, although systemd says that it was stopped.")

    async def _end_leftovers(self, host: Host, nodes: list[str], groups: set[str]) -> None:
        """Compositors of Plasma and GNOME run in user@UID.service, which outlives the session (kernel.md fact 12).

        A user's other logins (SSH, tmux in it) are none of the desktop's; settle-holders deals with what they have open.
        """

        def of_session(one: OpenNode) -> bool:
            return is_seat_service(one.process) or (_inside(one.process, groups) and not follows(host, one))

        holding = await wait_free(host, nodes, timeout=LEFTOVER_GRACE, of=of_session)
        for _ in range(ROUNDS):
            leftovers = [one.process for one in holding if not is_seat_service(one.process)]
            if leftovers:
                log.info("ending what the session left behind: %s", name_open(holding))
                await end(host, leftovers)
                holding = await wait_free(host, nodes, timeout=LEFTOVER_GRACE, of=of_session)
        if holding:
            raise InUseError(f"The desktop was told to end, but {name_open(holding)}. End it, then try again.")

    async def _end_sessions(self, host: Host, arguments: Json) -> None:
        """Those that the display manager's end has not ended: it abandons session scopes (KillUserProcesses=no)."""
        closing = await self._terminate(host, arguments)
        if closing and not await host.logins.wait_removed(closing, timeout=SESSION_TIMEOUT):
            # A session may stay in `closing` for ever (systemd#20397): what counts is who has the GPU open.
            log.warning("sessions %s do not close", ", ".join(closing))

    async def _terminate(self, host: Host, arguments: Json) -> list[str]:
        """Terminate those of the sessions that are still there; return their ids."""
        left = await _sessions(host, arguments)
        for session in left:
            if session.state != "closing":
                await host.logins.terminate(session.id)
        return [session.id for session in left]


async def _sessions(host: Host, arguments: Json) -> list[Session]:
    """Return those of the sessions that are there, and a greeter: it comes a moment after a desktop has ended by itself."""
    wanted, seat = arguments["sessions"], arguments["seat"]
    found = await host.logins.sessions()
    return [one for one in found if one.id in wanted or (one.kind == "greeter" and one.seat == seat)]


def _inside(process: Process, groups: set[str]) -> bool:
    """Tell whether a process is in one of these units."""
    return not groups.isdisjoint(process.cgroup.split("/"))
