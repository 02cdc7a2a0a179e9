"""systemd's units, over its bus API: the job's end is awaited by signal, never by looking again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from gpuhandoff.errors import ProblemError, TimedOutError
from gpuhandoff.messages import SERVICE_UNKNOWN, Bus, Match, RemoteError, Signal, Variant
from gpuhandoff.model.world import Unit

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
JOB = "org.freedesktop.systemd1.Job"
SLICE = "org.freedesktop.systemd1.Slice"
SCOPE = "org.freedesktop.systemd1.Scope"
PROPERTIES = "org.freedesktop.DBus.Properties"
NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"

LOOKS = 3
"""At a unit whose jobs end one after the other."""

log = logging.getLogger(__name__)


class UnitJobError(ProblemError):
    """systemd could not start or stop a unit."""


class Units:
    """Units of the system manager."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subscribed = False
        self._met = False
        """Whether systemd was there once: then its absence does not say that nothing runs."""

    async def unit(self, name: str) -> Unit | None:
        """Return a loaded unit, under its own name where `name` is an alias; None when it is not loaded.

        Raises RemoteError when systemd is there and does not say: what runs must not be taken for stopped.
        """
        try:
            properties, job = await self._look(await self._path(name))
        except RemoteError as error:
            if error.name == NO_SUCH_UNIT or (error.name == SERVICE_UNKNOWN and not self._met):
                return None
            raise
        self._met = True
        unit, state, detail = (str(properties[name].value) for name in ("Id", "ActiveState", "SubState"))
        return Unit(unit, state, detail, job)

    async def version(self) -> str:
        """Return systemd's own version; raises RemoteError."""
        (variant,) = await self._bus.call(NAME, PATH, PROPERTIES, "Get", "ss", (MANAGER, "Version"))
        return str(variant.value)

    async def start(self, name: str, *, timeout: float = 90.0) -> None:
        """Start a unit and wait for the job's end (seconds)."""
        await self._run("StartUnit", name, timeout)

    async def stop(self, name: str, *, timeout: float = 90.0) -> None:
        """Stop a unit and wait for the job's end (seconds). Restart= does not bring it back (kernel.md 11)."""
        await self._run("StopUnit", name, timeout)

    async def reset_failed(self, name: str) -> None:
        """Forget failures and start-limit counts."""
        try:
            await self._bus.call(NAME, PATH, MANAGER, "ResetFailedUnit", "s", (name,))
        except RemoteError as error:
            log.debug("nothing to reset for %s: %s", name, error.message)

    async def get(self, name: str, interface: str, prop: str) -> Any:
        """Return one property's value; raises RemoteError."""
        (variant,) = await self._bus.call(NAME, await self._path(name), PROPERTIES, "Get", "ss", (interface, prop))
        return variant.value

    async def freezer(self, name: str) -> str:
        """Return a unit's freezer state, "" for one that is not loaded any more; raises RemoteError."""
        try:
            return str(await self.get(name, UNIT, "FreezerState"))
        except RemoteError as error:
            if error.name in {NO_SUCH_UNIT, UNKNOWN_OBJECT}:
                return ""
            raise

    async def set_runtime(self, name: str, properties: Mapping[str, Variant]) -> None:
        """Set resource properties until the next reboot; raises RemoteError."""
        await self._bus.call(
            NAME, PATH, MANAGER, "SetUnitProperties", "sba(sv)", (name, True, [list(one) for one in properties.items()])
        )

    async def freeze(self, name: str) -> None:
        """Freeze a unit's cgroup; raises RemoteError."""
        await self._bus.call(NAME, PATH, MANAGER, "FreezeUnit", "s", (name,))

    async def thaw(self, name: str) -> None:
        """Thaw a unit's cgroup; raises RemoteError."""
        await self._bus.call(NAME, PATH, MANAGER, "ThawUnit", "s", (name,))

    async def _look(self, path: str) -> tuple[Mapping[str, Variant], str]:
        """Return a unit's properties and the type of its job; one that ends in between leaves it in another state."""
        for _ in range(LOOKS):
            (properties,) = await self._bus.call(NAME, path, PROPERTIES, "GetAll", "s", (UNIT,))
            number, job = properties["Job"].value
            kind = await self._kind(str(job)) if number else ""
            if kind is not None:
                break
        return properties, kind or ""

    async def _kind(self, job: str) -> str | None:
        """Return a job's type, None when it has ended."""
        try:
            (variant,) = await self._bus.call(NAME, job, PROPERTIES, "Get", "ss", (JOB, "JobType"))
        except RemoteError as error:
            if error.name != UNKNOWN_OBJECT:
                raise
            return None
        return str(variant.value)

    async def _path(self, name: str) -> str:
        (path,) = await self._bus.call(NAME, PATH, MANAGER, "GetUnit", "s", (name,))
        return str(path)

    async def _run(self, method: str, name: str, timeout: float) -> None:
        """Ask for a job, listening for its end from before it exists on."""
        await self._subscribe()
        ended: dict[str, str] = {}
        seen = asyncio.Event()

        def removed(signal: Signal) -> None:
            _, path, _, result = signal.body
            ended[str(path)] = str(result)
            seen.set()

        unsubscribe = await self._bus.subscribe(Match(MANAGER, "JobRemoved", sender=NAME), removed)
        try:
            async with asyncio.timeout(timeout):
                (job,) = await self._bus.call(NAME, PATH, MANAGER, method, "ss", (name, "replace"))
                while str(job) not in ended:
                    seen.clear()
                    await seen.wait()
        except TimeoutError:
            raise TimedOutError(
                f"{name} did not {_verb(method)} within {timeout:g} s. `systemctl status {name}` tells what it waits for."
            ) from None
        except RemoteError as error:
            raise UnitJobError(f"systemd did not {_verb(method)} {name}: {error.message}.") from error
        finally:
            unsubscribe()
        if ended[str(job)] != "done":
            raise UnitJobError(
                f"{name} could not be {_verb(method)}{'ped' if method == 'StopUnit' else 'ed'}: the job ended with "
                f"'{ended[str(job)]}'. `systemctl status {name}` tells why."
            )

    async def _subscribe(self) -> None:
        """Systemd sends JobRemoved only while somebody has subscribed."""
        if not self._subscribed:
            await self._bus.call(NAME, PATH, MANAGER, "Subscribe")
            self._subscribed = True


def _verb(method: str) -> str:
    return "stop" if method == "StopUnit" else "start"
