"""What Status, Plan, Holders and History answer, as `a{sv}`."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable

import gpuhandoff
from gpuhandoff.history.move import Move
from gpuhandoff.messages import Variant
from gpuhandoff.model.plan import Json
from gpuhandoff.model.world import Gpu, Holder, World
from gpuhandoff.plan.layout import layout_of
from gpuhandoff.plan.people import describe
from gpuhandoff.plan.refusal import unsettled
from gpuhandoff.service.fleet import Fleet
from gpuhandoff.service.jobs import Jobs

_STATUS = {
    "Address": "s",
    "Name": "s",
    "State": "s",
    "Reason": "s",
    "Driver": "s",
    "Functions": "as",
    "IommuGroup": "i",
    "Vm": "s",
    "Owner": "s",
    "Job": "o",
    "DrivesDisplay": "b",
    "Desktop": "s",
    "Integrated": "b",
    "Asleep": "b",
    "Connectors": "as",
    "ResetVerdict": "s",
    "ResetReason": "s",
    "ResetSource": "s",
    "ResetRisk": "b",
    "Needed": "b",
    "Guests": "u",
}


def status_report(fleet: Fleet, jobs: Jobs) -> dict[str, Variant]:
    """Return the reply of Status: one `a{sv}` per GPU by its address, and the versions."""
    report = {str(gpu.address): Variant("a{sv}", _gpu_report(fleet, jobs, gpu)) for gpu in fleet.world.gpus}
    report["version"] = Variant("s", gpuhandoff.__version__)
    layout = layout_of(fleet.world)
    report["layout"] = Variant("s", str(layout.kind))
    report["layout-reason"] = Variant("s", layout.reason)
    report["kernel"] = Variant("s", fleet.world.kernel_release or platform.release())
    return report


def _gpu_report(fleet: Fleet, jobs: Jobs, gpu: Gpu) -> dict[str, Variant]:
    properties = fleet.properties(gpu)
    report = {_key(name): Variant(signature, properties[name]) for name, signature in _STATUS.items()}
    job = jobs.running(gpu.address)
    report["step"] = Variant("s", job.step if job is not None else "")
    return report


def _key(name: str) -> str:
    """`IommuGroup` is `iommu-group` in an a{sv}."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("-")


def plan_report(steps: Iterable[tuple[str, str, str, Json]]) -> list[tuple[str, str, dict[str, Variant]]]:
    """Return the reply of Plan from (name, does, costs, arguments)."""
    return [
        (name, does, {"costs": Variant("s", costs), "arguments": Variant("s", json.dumps(arguments))})
        for name, does, costs, arguments in steps
    ]


def holder_report(world: World, gpu: Gpu, holder: Holder, asker: int) -> dict[str, Variant]:
    """Return one entry of the reply of Holders, for somebody with a uid."""
    return {
        "pid": Variant("u", holder.process.pid),
        "start-time": Variant("t", holder.process.start_time),
        "name": Variant("s", holder.process.name),
        "uid": Variant("u", holder.process.uid),
        "user": Variant("s", holder.user),
        "unit": Variant("s", holder.unit),
        "app": Variant("s", holder.app),
        "session": Variant("s", holder.session),
        "container": Variant("s", holder.container),
        "nodes": Variant("as", list(holder.nodes)),
        "ways": Variant("as", list(holder.ways)),
        "who": Variant("s", describe(world, holder, asker)),
        "leaves": Variant("b", holder not in unsettled(world, gpu)),
    }


def move_report(move: Move) -> dict[str, Variant]:
    """Return one entry of the reply of History."""
    return {
        "gpu": Variant("s", str(move.gpu)),
        "name": Variant("s", move.name),
        "operation": Variant("s", move.operation),
        "why": Variant("s", move.why),
        "vm": Variant("s", move.vm),
        "uid": Variant("u", move.uid),
        "guests": Variant("u", move.guests),
        "job": Variant("u", move.job),
        "boot": Variant("s", move.boot_id),
        "began": Variant("t", move.began),
        "seconds": Variant("d", move.seconds),
        "outcome": Variant("s", move.outcome),
        "back": Variant("s", move.back),
        "message": Variant("s", move.message),
        "steps": Variant("a(ssd)", [(one.step, one.phase, one.seconds) for one in move.steps]),
    }
