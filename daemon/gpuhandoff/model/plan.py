"""A plan: which steps, in which order, with which arguments. Plain JSON, so that a journal can hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import Operation

Json = Mapping[str, Any]
"""What a step is given and what it captures: strings, numbers, booleans, None, lists and objects of these."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step: its name in the table of `gpuhandoff.steps`, its arguments, and two sentences for a person."""

    name: str
    arguments: Json
    does: str
    """What it changes: "bind 0000:01:00.0, 0000:01:00.1 to vfio-pci"."""
    costs: str = ""
    """What the person loses: "your session on seat0 ends"; empty when nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, in order. Reclaim of our own handoff needs no plan: it is the journal in reverse."""

    operation: Operation
    gpu: PciAddress
    steps: tuple[PlannedStep, ...]
    nodes: tuple[str, ...] = ()
    """Device nodes through which a process or a VMM can have the card: to tell who, should it hang."""
