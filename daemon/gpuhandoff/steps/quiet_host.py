"""What the configuration names pauses while the guest runs."""

from __future__ import annotations

import logging
import signal

from gpuhandoff.errors import RolledBackError
from gpuhandoff.host import STOPPED, Host
from gpuhandoff.messages import RemoteError
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import Process
from gpuhandoff.steps.holders import is_indispensable

log = logging.getLogger(__name__)


class QuietHost:
    """Units are frozen through systemd, processes stopped by signal; only what we stopped is continued."""

    name = "quiet-host"
    needs_gpu = False
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Choose what runs now: what is frozen or stopped already is somebody else's to continue."""
        units = []
        for name in arguments["units"]:
            unit = await host.units.unit(str(name))
            if unit is not None and unit.active_state == "active" and await _freezer(host, unit.name) == "running":
                units.append(unit.name)
        processes = [
            entry
            for entry in arguments["processes"]
            if host.processes.state(_process(entry)) not in {None, *STOPPED} and not is_indispensable(_process(entry))
        ]
        return {"units": units, "processes": [dict(entry) for entry in processes]}

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Freeze and stop."""
        for name in saved["units"]:
            try:
                await host.units.freeze(name)
            except RemoteError as error:
                raise RolledBackError(f"{name} cannot be frozen: {error.message}.") from error
        for entry in saved["processes"]:
            host.processes.signal(_process(entry), signal.SIGSTOP)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Thaw and continue."""
        for name in saved["units"]:
            try:
                if await host.units.freezer(name) in {"frozen", "freezing"}:
                    await host.units.thaw(name)
            except RemoteError as error:
                raise RolledBackError(f"{name} cannot be thawed: {error.message}.") from error
        for entry in saved["processes"]:
            if host.processes.state(_process(entry)) in STOPPED:
                host.processes.signal(_process(entry), signal.SIGCONT)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether everything that is still there pauses."""
        for name in saved["units"]:
            if await _freezer(host, name) == "running":
                return False
        return all(host.processes.state(_process(entry)) in {None, *STOPPED} for entry in saved["processes"])


def _process(entry: Json) -> Process:
    return Process(int(entry["pid"]), int(entry["start_time"]), str(entry["name"]), 0)


async def _freezer(host: Host, unit: str) -> str:
    """Return a unit's freezer state, or "" where systemd does not say."""
    try:
        return await host.units.freezer(unit)
    except RemoteError as error:
        log.debug("no freezer state of %s: %s", unit, error.message)
        return ""
