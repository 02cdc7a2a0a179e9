"""The host keeps to its housekeeping CPUs, so that the guest's stay quiet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any

from gpuhandoff.errors import ProblemError, RolledBackError, UnsupportedError
from gpuhandoff.host import Host, OverdueError
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.cpus import format_cpus, parse_cpus
from gpuhandoff.model.plan import Json
from gpuhandoff.steps import processors

VERIFY = 5.0
"""Seconds for EffectiveCPUs to follow: systemd applies cgroup settings from its own queue, without a signal."""

log = logging.getLogger(__name__)


class ConfineHost:
    """AllowedCPUs at run time on every slice but the guests', journaled as explicit values."""

    name = "confine-host"
    needs_gpu = False
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember AllowedCPUs and EffectiveCPUs (empty: all) of each unit, and what else was asked to be moved."""
        units: dict[str, Any] = {}
        for name in arguments["units"]:
            allowed, effective = await _cpus(host, name, "AllowedCPUs"), await _cpus(host, name, "EffectiveCPUs")
            if effective == processors.online(host):  # all, which may be others by the time of the undo
                effective = frozenset()
            units[name] = {"AllowedCPUs": format_cpus(allowed), "EffectiveCPUs": format_cpus(effective)}
        governors = {}
        if arguments["governor"]:
            for cpu in sorted(parse_cpus(arguments["guest_cpus"])):
                governor = processors.read_attribute(host, processors.governor_path(cpu))
                if governor is not None:
                    governors[str(cpu)] = governor
        return {
            "units": units,
            "interrupts": processors.capture_interrupts(host) if arguments["interrupts"] else {},
            "workqueues": processors.read_attribute(host, processors.WORKQUEUES) if arguments["workqueues"] else None,
            "governors": governors,
        }

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Confine every unit and verify it; then interrupts, workqueues, governors."""
        wanted = parse_cpus(arguments["cpus"])
        for name in arguments["units"]:
            await _allow(host, name, wanted)
        for name in arguments["units"]:
            await _verify(host, name, wanted)
        await processors.move_interrupts(host, saved["interrupts"], arguments["cpus"])
        if saved["workqueues"] is not None:
            await host.kernel.write(processors.WORKQUEUES, processors.mask(wanted))
        for cpu in saved["governors"]:
            await processors.set_governor(host, int(cpu), arguments["governor"])

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Set back what is still as we set it: all that can be, whatever fails; then raise what failed first."""
        wanted = parse_cpus(arguments["cpus"])
        restores = [
            partial(_release, host, name, wanted, parse_cpus(was["AllowedCPUs"]), parse_cpus(was["EffectiveCPUs"]))
            for name, was in saved["units"].items()
        ]
        restores.append(partial(processors.restore_interrupts, host, saved["interrupts"]))
        if saved["workqueues"] is not None:
            restores.append(partial(processors.restore_workqueues, host, saved["workqueues"], wanted))
        restores += [
            partial(processors.restore_governor, host, int(cpu), governor, arguments["governor"])
            for cpu, governor in saved["governors"].items()
        ]
        await _all(restores)

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether every unit is confined."""
        wanted = _usable(host, parse_cpus(arguments["cpus"]))
        try:
            return all([await _cpus(host, name, "EffectiveCPUs") == wanted for name in arguments["units"]])
        except UnsupportedError as error:
            log.warning("%s", error.message)
            return False


def _interface(unit: str) -> str:
    kind = unit.rpartition(".")[2].capitalize()
    return f"org.freedesktop.systemd1.{kind}"


async def _cpus(host: Host, unit: str, kind: str) -> frozenset[int]:
    """Return AllowedCPUs or EffectiveCPUs: bytes, lowest CPU in the lowest bit of the first."""
    try:
        data = bytes(await host.units.get(unit, _interface(unit), kind))
    except RemoteError as error:
        raise UnsupportedError(f"systemd does not tell which CPUs {unit} may use: {error.message}.") from error
    return frozenset(place * 8 + bit for place, byte in enumerate(data) for bit in range(8) if byte >> bit & 1)


async def _allow(host: Host, unit: str, cpus: Collection[int]) -> None:
    data = bytearray(max(cpus, default=-1) // 8 + 1)
    for cpu in cpus:
        data[cpu // 8] |= 1 << cpu % 8
    try:
        await host.units.set_runtime(unit, {"AllowedCPUs": Variant("ay", bytes(data))})
    except RemoteError as error:
        listed = format_cpus(cpus) or "all"
        raise RolledBackError(f"systemd did not let {unit} have the CPUs {listed}: {error.message}.") from error


async def _release(
    host: Host, unit: str, wanted: frozenset[int], allowed: frozenset[int], effective: frozenset[int]
) -> None:
    """Give a unit its CPUs back, unless somebody else has set its AllowedCPUs meanwhile.

    An empty AllowedCPUs does not widen the live cpuset (systemd#43846): the CPUs that were in effect are written first,
    and then what was set. Where that was all of them, those that are offline are written too: the cpuset outlasts that.
    """
    effective = effective or processors.present(host)
    now = await _cpus(host, unit, "AllowedCPUs")
    if now not in {wanted, effective, allowed}:
        log.warning("somebody else has confined %s to the CPUs %s meanwhile: left so", unit, format_cpus(now))
        return
    live = await _cpus(host, unit, "EffectiveCPUs")  # empty until something uses the cpuset controller
    if live and (now == wanted or live != _usable(host, effective)):
        await _allow(host, unit, effective)
        await _verify(host, unit, effective)
    if await _cpus(host, unit, "AllowedCPUs") != allowed:
        await _allow(host, unit, allowed)
        found = await _cpus(host, unit, "AllowedCPUs")
        if found != allowed:
            raise RolledBackError(f"{unit} keeps the CPUs {format_cpus(found)}, although systemd says that it was released.")


def _usable(host: Host, cpus: frozenset[int]) -> frozenset[int]:
    """Return what a cpuset of these CPUs has in effect: those that are online, or all that are where none of them is."""
    online = processors.online(host)
    return cpus & online or online


async def _verify(host: Host, unit: str, wanted: frozenset[int]) -> None:
    """Wait until a unit uses these CPUs, of those that are online: they come and go as we look (SMT is a switch)."""
    pause = 0.01
    try:
        async with asyncio.timeout(VERIFY):
            while await _cpus(host, unit, "EffectiveCPUs") != _usable(host, wanted):
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.25)
    except TimeoutError:
        found, usable = await _cpus(host, unit, "EffectiveCPUs"), _usable(host, wanted)
        if found == usable:  # it was systemd that took its time to say so
            return
        raise RolledBackError(
            f"{unit} was told to use the CPUs {format_cpus(usable)} and uses {format_cpus(found) or 'none of its own'}. "
            "Is the cpuset controller available?"
        ) from None


async def _all(restores: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do all of it, one after the other; raises what failed first, once everything was tried."""
    failures: list[Exception] = []
    for restore in restores:
        try:
            await restore()
        except (ProblemError, RemoteError, OSError, OverdueError) as error:
            failures.append(error)
    for further in failures[1:]:
        log.warning("this could not be set back either: %s", further)
    if failures:
        raise failures[0]
