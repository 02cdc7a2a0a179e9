"""Why something hangs or cannot be undone, in sentences that say what a person can do."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection

from gpuhandoff.errors import ProblemError
from gpuhandoff.host import Host, OpenNode, OverdueError
from gpuhandoff.messages import UNANSWERED, RemoteError
from gpuhandoff.steps.holders import name_open
from gpuhandoff.steps.step import GoneError

WAITS = {
    "snd_card_free": "everybody to close the card's sound devices",
    "snd_card_disconnect_sync": "everybody to close the card's sound devices",
    "i2c_del_adapter": "everybody to close the card's I2C buses",
    "vfio_unregister_group_dev": "the virtual machine to let go of the card",
    "nv_pci_remove": "everybody to close the card's NVIDIA devices",
    "nv_pci_remove_helper": "everybody to close the card's NVIDIA devices",
    "os_delay": "everybody to close the card's NVIDIA devices",
    "drm_dev_unplug": "programs to return from the display driver",
    "device_driver_detach": "another operation on the same device",
    "driver_override_show": "another operation on the same device",
}
"""What the kernel waits for in these functions (kernel.md 1.4)."""

AT_SHUTDOWN = (
    "Shutting the machine down or rebooting it may wait for the same thing, as the kernel locks every device for that; "
    "if it does, only switching the power off helps."
)


def describe(error: BaseException) -> str:
    """Return a failure in words, without the full stop."""
    match error:
        case ProblemError() | RemoteError():
            return error.message.rstrip(".")
        case OverdueError():
            return _overdue(error)
        case OSError(errno=int(number)):
            where = f" ({error.filename})" if error.filename else ""
            return f"{errno.errorcode.get(number, number)}: {error.strerror or os.strerror(number)}{where}"
    return str(error) or type(error).__name__


def _overdue(error: OverdueError) -> str:
    if not error.waits_in:
        return str(error)
    cause = WAITS.get(error.waits_in)
    return f"{error}; the kernel waits in {error.waits_in} (process {error.process}, state {error.state})" + (
        f" for {cause}" if cause else ""
    )


def stuck_sentence(gpu: str, step: str, cause: BaseException, holding: Collection[OpenNode], *, locked: bool) -> str:
    """Return what is stuck where, why, who has the card open, and what to do; `locked`: what hangs may lock the card."""
    pending = isinstance(cause, OverdueError)
    remedy: list[str] = []
    if isinstance(cause, GoneError):
        remedy.append("Then gpuhandoff goes on by itself.")
    elif holding:
        remedy.append(f"{name_open(holding)}: close that, and gpuhandoff goes on by itself.")
    elif pending:
        remedy.append("gpuhandoff goes on by itself when the kernel has finished.")
    elif ends_by_itself(cause):
        remedy.append("gpuhandoff tries again by itself.")
    else:
        remedy.append("Remove that cause and reclaim the GPU again; if that is impossible, a reboot brings everything back.")
    if pending and locked:
        remedy.append(AT_SHUTDOWN)
    return f"{gpu} is stuck at {step}: {describe(cause).rstrip('.')}. {' '.join(remedy)}"


def ends_by_itself(cause: BaseException) -> bool:
    """Tell a cause that may end without us: the kernel finishes, a service answers again, the card is put back."""
    return any(
        isinstance(one, (OverdueError, GoneError)) or (isinstance(one, RemoteError) and one.name in UNANSWERED)
        for one in (cause, cause.__cause__)
    )


def nor(step: str, cause: BaseException) -> str:
    """Return what else could not be undone, as a sentence to be added."""
    again = "; that is tried again by itself" if ends_by_itself(cause) else ""
    return f" Nor could {step} be undone: {describe(cause).rstrip('.')}{again}."


async def who_holds(host: Host, nodes: Collection[str]) -> tuple[OpenNode, ...]:
    """Return who has the card open, deleted nodes included: what is unplugged stays open until it is closed."""
    try:
        return await host.processes.holding(sorted(nodes)) if nodes else ()
    except OSError:
        return ()
