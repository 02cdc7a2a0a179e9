"""Whether what was said of a GPU is true of the case that was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuhandoff.messages import NO_REPLY, RemoteError
from gpuhandoff.steps.load_vfio import FAMILY
from tests.support import fault_effects
from tests.support.fault_case import Case, UnexpectedError


def is_stuck(error: RemoteError) -> bool:
    """Tell whether somebody was told that the GPU is stuck."""
    return error.name.endswith(".Stuck")


def check_outcome(case: Case, outcome: RemoteError | None, status: dict[str, Any]) -> None:
    """Raise UnexpectedError where what the caller was told is not true."""
    state, direction = status["state"], case.direction
    killed = case.moment not in {"", "later"}
    if outcome is None:
        if case.moment == "" and direction in {"handoff", "reclaim"}:
            wanted = "detached" if direction == "handoff" else "host"
            if state != wanted:
                raise UnexpectedError(f"{direction} succeeded and the GPU is {state}: {status['reason']}")
        return
    if killed and outcome.name == NO_REPLY:
        return
    if "internal error" in outcome.message or " in the handler" in outcome.message or not outcome.name.startswith("org."):
        raise UnexpectedError(f"an internal error: {outcome.name}: {outcome.message}")
    if is_stuck(outcome) != (state == "stuck") and not (is_stuck(outcome) and state == "host"):
        raise UnexpectedError(f"the caller was told {outcome.name} and the GPU is {state}: {outcome.message}")


def check_cause(case: Case, reason: str, struck_at: Sequence[tuple[str, str]]) -> None:
    """Raise UnexpectedError where a GPU is stuck and the cause, or a step (with its phase) that it struck, is not named."""
    wanted = fault_effects.causes(case.operation, case.fault)
    if not any(one in reason for one in wanted):
        raise UnexpectedError(f"stuck, but the cause is not named ({' or '.join(wanted)}): {reason}")
    steps = [step for step, phase in struck_at if phase in {"apply", "undo"}]
    if steps and not any(f"stuck at {step}:" in reason for step in steps):
        raise UnexpectedError(f"stuck, but the step is not named ({' or '.join(steps)}): {reason}")


def is_tolerated(case: Case, difference: str) -> bool:
    """VFIO's modules may stay where the kernel refuses to remove them: that is no reason to call a GPU stuck."""
    operation = case.operation
    return (
        operation.kind == "remove-module"
        and operation.target in FAMILY
        and difference.startswith((*(f"/modules/{name}:" for name in FAMILY), "/nodes: + /dev/vfio/vfio"))
    )
