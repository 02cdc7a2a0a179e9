"""The plan for a GPU that somebody else bound to vfio-pci: kernel command line, driverctl, a script.

A GPU that we handed off needs no plan to come back: its journal is undone in reverse.
"""

from __future__ import annotations

from gpuhandoff.errors import InUseError, WrongStateError
from gpuhandoff.model.plan import Plan, PlannedStep
from gpuhandoff.model.request import HolderPolicy, Operation, Options
from gpuhandoff.model.world import Gpu


def refuse_reclaim(gpu: Gpu, options: Options) -> None:
    """Raise InUseError while a virtual machine that may not be ended has it: unbound, it would hang (kernel.md 1.4)."""
    if gpu.guest is not None and options.holders is not HolderPolicy.TERMINATE:
        raise InUseError(
            f"{gpu.address} ({gpu.name}) is with a virtual machine: {gpu.guest.name} (pid {gpu.guest.pid}) has it open. "
            "Shut that machine down first, or allow it to be ended with the option holders=terminate."
        )


def plan_release(gpu: Gpu) -> Plan:
    """Return the plan that brings `gpu` to its native driver, or raise why it cannot be."""
    if not any(function.driver == "vfio-pci" or function.driver is None for function in gpu.functions):
        raise WrongStateError(f"{gpu.address} ({gpu.name}) is with the host already: there is nothing to reclaim.")
    functions = [str(function.address) for function in gpu.functions]
    step = PlannedStep(
        "release-functions",
        {"functions": functions, "modules": []},
        f"give {', '.join(functions)} back to the drivers of the host",
    )
    return Plan(Operation.RECLAIM, gpu.address, (step,), gpu.nodes)
