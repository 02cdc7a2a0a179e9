"""Who may call what: every method of ours has a row, and one without a row is refused before anything runs.

Methods of the D-Bus specification (Properties.Get and GetAll, Introspect, Ping, GetManagedObjects) show what Status shows
and are free to all; Properties.Set never changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from gpuhandoff.model.request import HolderPolicy, Operation, Request
from gpuhandoff.names import (
    ACTION_EVICT_GUEST,
    ACTION_HANDOFF,
    ACTION_HANDOFF_DISPLAY,
    ACTION_INHIBIT,
    ACTION_INSPECT,
    ACTION_RECLAIM,
    ACTION_STATUS,
    ACTION_TERMINATE_HOLDERS,
    HYPERVISOR_INTERFACE,
    JOB_INTERFACE,
    MANAGER_INTERFACE,
)


class Rule(StrEnum):
    """What decides about a call."""

    STATUS = ACTION_STATUS
    INSPECT = ACTION_INSPECT
    INHIBIT = ACTION_INHIBIT
    REQUEST = "by what the request would do"
    OWNER = "only whose it is, without asking polkit"
    ROOT = "root alone, by user id, without asking polkit"


METHODS: Mapping[tuple[str, str], Rule] = {
    (MANAGER_INTERFACE, "Handoff"): Rule.REQUEST,
    (MANAGER_INTERFACE, "Reclaim"): Rule.REQUEST,
    (MANAGER_INTERFACE, "Status"): Rule.STATUS,
    (MANAGER_INTERFACE, "Plan"): Rule.INSPECT,
    (MANAGER_INTERFACE, "Holders"): Rule.INSPECT,
    (MANAGER_INTERFACE, "History"): Rule.INSPECT,
    (MANAGER_INTERFACE, "Report"): Rule.INSPECT,
    (MANAGER_INTERFACE, "Preview"): Rule.INSPECT,
    (MANAGER_INTERFACE, "Diagnose"): Rule.INSPECT,
    (MANAGER_INTERFACE, "Inhibit"): Rule.INHIBIT,
    (MANAGER_INTERFACE, "Uninhibit"): Rule.OWNER,
    (JOB_INTERFACE, "Cancel"): Rule.REQUEST,
    (HYPERVISOR_INTERFACE, "Event"): Rule.ROOT,
    (HYPERVISOR_INTERFACE, "EventInParts"): Rule.ROOT,
}


def request_actions(request: Request) -> tuple[str, ...]:
    """Return the polkit actions that a request needs, all of them. They follow from its options alone, before any survey.

    A dry run changes nothing, but says who has the GPU open, as Plan does.
    """
    options = request.options
    if options.dry_run:
        return (ACTION_INSPECT,)
    terminate = options.holders is HolderPolicy.TERMINATE
    if request.operation is Operation.RECLAIM:
        return (ACTION_RECLAIM, ACTION_EVICT_GUEST) if terminate else (ACTION_RECLAIM,)
    first = ACTION_HANDOFF_DISPLAY if options.stop_display else ACTION_HANDOFF
    return (first, ACTION_TERMINATE_HOLDERS) if terminate else (first,)
