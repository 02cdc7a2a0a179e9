"""A stand-in for systemd's manager on the bus."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from gpuhandoff.messages import Call, RemoteError, Reply, Variant
from gpuhandoff.simulation.standin import StandIn, escape
from gpuhandoff.simulation.unit_jobs import UnitJob, UnitJobs
from gpuhandoff.simulation.units import SimulatedUnit

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
JOB = "org.freedesktop.systemd1.Job"
ROOT_PATH = "/org/freedesktop/systemd1"
NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
NOT_SUPPORTED = "org.freedesktop.DBus.Error.NotSupported"


class SimulatedSystemd(StandIn):
    """systemd1: units, jobs that end with JobRemoved, CPU sets, freezing."""

    name = "org.freedesktop.systemd1"

    def __init__(self, machine: SimulatedMachine) -> None:
        super().__init__(machine)
        self._subscribed = False
        self._jobs = UnitJobs(machine, self._began, self._ended)
        machine.units.listeners.append(self._changed)
        self.methods |= {
            (MANAGER, "Subscribe"): ("", self._subscribe),
            (MANAGER, "GetUnit"): ("s", self._get_unit),
            (MANAGER, "LoadUnit"): ("s", self._load_unit),
            (MANAGER, "GetUnitByPID"): ("u", self._get_unit_by_pid),
            (MANAGER, "ListUnits"): ("", self._list_units),
            (MANAGER, "ListUnitsByNames"): ("as", self._list_units_by_names),
            (MANAGER, "StartUnit"): ("ss", self._start_unit),
            (MANAGER, "StopUnit"): ("ss", self._stop_unit),
            (MANAGER, "RestartUnit"): ("ss", self._restart_unit),
            (MANAGER, "ResetFailedUnit"): ("s", self._reset_failed),
            (MANAGER, "SetUnitProperties"): ("sba(sv)", self._set_properties),
            (MANAGER, "FreezeUnit"): ("s", self._freeze),
            (MANAGER, "ThawUnit"): ("s", self._thaw),
        }

    def properties(self, path: str, interface: str) -> Mapping[str, Variant] | None:
        """Return a unit's properties; those of its type are on an interface of their own."""
        if path == ROOT_PATH:
            return {"Version": Variant("s", "257.9-1")} if interface == MANAGER else {}
        if path.startswith(f"{ROOT_PATH}/job/"):
            job = self._jobs.numbered(path.rpartition("/")[2])
            return _shown(job, interface) if job is not None else None
        unit = next((unit for unit in self.machine.units.units.values() if unit_path(unit.name) == path), None)
        if unit is None:
            label = path.removeprefix(f"{ROOT_PATH}/unit/")
            return _absent(label) if interface == UNIT and label != path else None
        if interface == UNIT:
            return {
                "Id": Variant("s", unit.name),
                "Names": Variant("as", [unit.name, *unit.aliases]),
                "Description": Variant("s", unit.name),
                "LoadState": Variant("s", "loaded"),
                "ActiveState": Variant("s", unit.active_state),
                "SubState": Variant("s", unit.sub_state),
                "FreezerState": Variant("s", "frozen" if unit.frozen else "running"),
                "Job": Variant("(uo)", (job.number, job_path(job)) if (job := self._jobs.of(unit.name)) else (0, "/")),
            }
        if interface == f"org.freedesktop.systemd1.{unit.kind}":
            alive = unit.active_state in {"active", "activating", "deactivating", "reloading"}
            return {
                "ControlGroup": Variant("s", unit.control_group if alive else ""),
                "AllowedCPUs": Variant("ay", pack(unit.allowed_cpus)),
                "EffectiveCPUs": Variant("ay", pack(self.machine.units.effective_cpus(unit)) if alive else b""),
                "MainPID": Variant("u", unit.main.pid if unit.main else 0),
            }
        return {}

    async def _subscribe(self, _call: Call) -> Reply:
        self._subscribed = True
        return Reply()

    async def _get_unit(self, call: Call) -> Reply:
        return Reply("o", (unit_path(self._unit(call.body[0]).name),))

    async def _load_unit(self, call: Call) -> Reply:
        unit = self.machine.units.find(call.body[0])
        return Reply("o", (unit_path(unit.name if unit else call.body[0]),))

    async def _get_unit_by_pid(self, call: Call) -> Reply:
        unit = self.machine.units.of_process(call.body[0])
        if unit is None:
            raise RemoteError("org.freedesktop.systemd1.NoUnitForPID", f"PID {call.body[0]} has no unit.")
        return Reply("o", (unit_path(unit.name),))

    async def _list_units(self, _call: Call) -> Reply:
        return self._rows(list(self.machine.units.units.values()))

    async def _list_units_by_names(self, call: Call) -> Reply:
        found = [self.machine.units.find(name) for name in call.body[0]]
        return self._rows([unit for unit in found if unit is not None])

    async def _start_unit(self, call: Call) -> Reply:
        unit = self._unit(call.body[0])
        return self._queue("start", unit, lambda: self.machine.units.start(unit))

    async def _stop_unit(self, call: Call) -> Reply:
        unit = self._unit(call.body[0])
        return self._queue("stop", unit, lambda: self.machine.units.stop(unit))

    async def _restart_unit(self, call: Call) -> Reply:
        unit = self._unit(call.body[0])

        async def restart() -> str:
            result = await self.machine.units.stop(unit)
            return await self.machine.units.start(unit) if result == "done" else result

        return self._queue("restart", unit, restart)

    async def _reset_failed(self, call: Call) -> Reply:
        unit = self._unit(call.body[0])
        if unit.active_state == "failed":
            unit.active_state, unit.sub_state = "inactive", "dead"
            self._changed(unit)
        return Reply()

    async def _set_properties(self, call: Call) -> Reply:
        name, runtime, assignments = call.body
        unit = self._unit(name)
        for key, variant in assignments:
            if key != "AllowedCPUs" or variant.signature != "ay":
                raise RemoteError(READ_ONLY, f"Cannot set property {key}, or unknown property.")
            if not runtime:
                raise RemoteError(NOT_SUPPORTED, "The simulation refuses what would survive a reboot (promise 2).")
            self.machine.units.confine(unit, unpack(variant.value))
        return Reply()

    async def _freeze(self, call: Call) -> Reply:
        await self.machine.units.freeze(self._unit(call.body[0]), frozen=True)
        return Reply()

    async def _thaw(self, call: Call) -> Reply:
        await self.machine.units.freeze(self._unit(call.body[0]), frozen=False)
        return Reply()

    def _queue(self, kind: str, unit: SimulatedUnit, perform: Callable[[], Coroutine[Any, Any, str]]) -> Reply:
        return Reply("o", (job_path(self._jobs.enqueue(kind, unit.name, perform)),))

    def _began(self, job: UnitJob) -> None:
        if self._subscribed:
            self.emit(ROOT_PATH, MANAGER, "JobNew", "uos", (job.number, job_path(job), job.unit))

    def _ended(self, job: UnitJob, result: str) -> None:
        if self._subscribed:
            self.emit(ROOT_PATH, MANAGER, "JobRemoved", "uoss", (job.number, job_path(job), job.unit, result))

    def _changed(self, unit: SimulatedUnit) -> None:
        if self._subscribed:
            changed = {
                "ActiveState": Variant("s", unit.active_state),
                "SubState": Variant("s", unit.sub_state),
                "FreezerState": Variant("s", "frozen" if unit.frozen else "running"),
            }
            self.emit_changed(unit_path(unit.name), UNIT, changed)

    def _unit(self, name: str) -> SimulatedUnit:
        unit = self.machine.units.find(name)
        if unit is None:
            raise RemoteError(NO_SUCH_UNIT, f"Unit {name} not loaded.")
        return unit

    def _rows(self, units: list[SimulatedUnit]) -> Reply:
        rows = [
            (unit.name, unit.name, "loaded", unit.active_state, unit.sub_state, "", unit_path(unit.name), 0, "", "/")
            for unit in units
        ]
        return Reply("a(ssssssouso)", (rows,))


@cache
def unit_path(name: str) -> str:
    """Return a unit's object path."""
    return f"{ROOT_PATH}/unit/{escape(name)}"


def job_path(job: UnitJob) -> str:
    """Return a job's object path."""
    return f"{ROOT_PATH}/job/{job.number}"


def pack(cpus: frozenset[int]) -> bytes:
    """Return CPUs as the bit mask that systemd sends: bit n of byte m is CPU 8m+n."""
    value = sum(1 << cpu for cpu in cpus)
    return value.to_bytes((value.bit_length() + 7) // 8, "little")


def unpack(mask: bytes) -> frozenset[int]:
    """Return the CPUs of a mask."""
    value = int.from_bytes(mask, "little")
    return frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)


def _shown(job: UnitJob, interface: str) -> dict[str, Variant]:
    properties = {
        "Id": Variant("u", job.number),
        "Unit": Variant("(so)", (job.unit, unit_path(job.unit))),
        "JobType": Variant("s", job.kind),
    }
    return properties if interface == JOB else {}


def _absent(label: str) -> dict[str, Variant]:
    """What LoadUnit makes of a name that no file defines."""
    return {
        "Id": Variant("s", label),
        "Names": Variant("as", [label]),
        "LoadState": Variant("s", "not-found"),
        "ActiveState": Variant("s", "inactive"),
        "SubState": Variant("s", "dead"),
        "Job": Variant("(uo)", (0, "/")),
    }
