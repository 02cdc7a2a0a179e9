"""What a caller asked for: parsed once from the bus, frozen before anybody is asked whether it is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gpuhandoff.model.address import PciAddress


class Operation(StrEnum):
    """The two directions."""

    HANDOFF = "handoff"
    RECLAIM = "reclaim"


class Why(StrEnum):
    """What made a move happen."""

    ASKED = "asked"
    LEASE_ENDED = "lease-ended"
    GUEST_ENDED = "guest-ended"
    GUEST_MISSING = "guest-missing"
    """No VMM has opened the GPU in the time it was given."""
    GPU_GONE = "gpu-gone"
    """It has left the PCI bus, and what was changed for it on the host is of no use any more."""
    RECOVERY = "recovery"
    """A daemon that has just started found an open journal."""
    UNSTUCK = "unstuck"
    """What a stuck GPU waited for is gone."""


class HolderPolicy(StrEnum):
    """What to do with processes that have the GPU open."""

    REFUSE = "refuse"
    TERMINATE = "terminate"


class Hugepages(StrEnum):
    """How the guest's memory is backed."""

    NONE = "none"
    TRANSPARENT = "transparent"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Options:
    """The `a{sv}` of Handoff and Reclaim; defaults come from the configuration (per GPU, per VM), then from here."""

    wait: bool = True
    vm: str = ""
    stop_display: bool = False
    holders: HolderPolicy = HolderPolicy.REFUSE
    cpus: frozenset[int] = field(default_factory=frozenset)
    """Housekeeping CPUs: those that the host keeps while the guest runs. Empty: the host keeps all."""
    memory: int = 0
    """Bytes that the guest will need; 0: nothing is freed or backed."""
    hugepages: Hugepages = Hugepages.NONE
    quiet: bool = False
    accept_risk: bool = False
    bars: tuple[tuple[int, int], ...] = ()
    """Memory windows of the display function and their sizes in bytes while the guest has it; none leaves them."""
    timeout: int = 0
    """Seconds for the whole job; 0: the steps' own limits only."""
    guest_timeout: int = 0
    """Seconds within which a VMM has to open the GPU, else it comes back; 0: for ever."""
    lease: bool = False
    dry_run: bool = False
    interactive: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One wish of one caller. `sender` is a unique bus name, or empty for the daemon itself."""

    operation: Operation
    gpu: PciAddress | None
    """None where the caller left it to us (`""`)."""
    options: Options
    sender: str = ""
    interactive: bool = False
    why: Why = Why.ASKED
    only_user: int | None = None
    """The only user whose desktop may end; None: anybody's. What was allowed, to be held against a fresh survey."""
