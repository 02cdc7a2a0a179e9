"""Where a GPU is, derived from the machine, the open journal and the running job (promise 8)."""

from __future__ import annotations

from dataclasses import dataclass

from gpuhandoff.model.request import Operation
from gpuhandoff.model.world import Gpu, State
from gpuhandoff.plan.stacks import native
from gpuhandoff.transaction.record import Record


@dataclass(frozen=True, slots=True)
class Standing:
    """A state and, where it does not speak for itself, the reason."""

    state: State
    reason: str = ""


UNKNOWN = (
    "The journal of its handoff cannot be read and was set aside. Reclaim gives the card back to its driver; services, "
    "CPUs and memory that were changed for the guest come back with a reboot."
)


def derive(gpu: Gpu, record: Record | None, running: Operation | None, *, aside: bool = False) -> Standing:
    """Return the state of `gpu`.

    `running`: what a job does to it now, RECLAIM also when it rolls back. `aside`: an earlier journal cannot be understood.
    """
    if running is Operation.HANDOFF:
        return Standing(State.HANDING_OFF)
    if running is Operation.RECLAIM:
        return Standing(State.RECLAIMING, record.undoing if record is not None else "")
    if record is not None and not record.complete:
        return Standing(
            State.STUCK,
            record.stuck or f"A {record.operation or 'move'} was interrupted and has not been undone: reclaim it.",
        )
    if gpu.on_vfio:
        return _away(gpu, record, aside=aside)
    if record is not None:
        drivers = ", ".join(f"{function.address} on {function.driver or 'no driver'}" for function in gpu.functions)
        return Standing(State.FOREIGN, f"Somebody else moved it after the handoff: {drivers}. Reclaim puts it in order.")
    return _at_home(gpu)


def _at_home(gpu: Gpu) -> Standing:
    if native(gpu.display):
        return Standing(State.HOST)
    driver = gpu.display.driver
    return Standing(State.FOREIGN, f"bound to {driver}" if driver else "no driver is bound")


def _away(gpu: Gpu, record: Record | None, *, aside: bool) -> Standing:
    if gpu.guest is not None:
        return Standing(State.GUEST, "" if record is not None else UNKNOWN if aside else "handed over by somebody else")
    return Standing(State.DETACHED, "" if record is not None else UNKNOWN if aside else "bound to vfio-pci by somebody else")
