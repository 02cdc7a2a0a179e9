"""Who may call what: every method has a row, and one without a row is refused before anything runs.

What a Handoff or Reclaim needs follows from what it may do (`Effect`), all of which has to be allowed; what a guest's
configuration says gives options, never permission.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import StrEnum

from gpuhandoff.errors import AccessDeniedError
from gpuhandoff.model.request import HolderPolicy, Operation, Request
from gpuhandoff.names import (
    ACTION_ACCEPT_RISK,
    ACTION_EVICT_GUEST,
    ACTION_HANDOFF,
    ACTION_HANDOFF_DISPLAY,
    ACTION_HANDOFF_OTHERS,
    ACTION_INHIBIT,
    ACTION_INSPECT,
    ACTION_RECLAIM,
    ACTION_STATUS,
    ACTION_TERMINATE_HOLDERS,
    HYPERVISOR_INTERFACE,
    JOB_INTERFACE,
    MANAGER_INTERFACE,
)

_DBUS = "org.freedesktop.DBus"


class Rule(StrEnum):
    """What decides about a call."""

    STATUS = ACTION_STATUS
    INSPECT = ACTION_INSPECT
    INHIBIT = ACTION_INHIBIT
    REQUEST = "by what the request would do"
    OWNER = "only whose it is, without asking polkit"
    AFFECTED = "only whose desktop would end, while the job waits for them, without asking polkit"
    ROOT = "root alone, by user id, without asking polkit"
    FREE = "everybody: it shows what Status shows, and changes nothing"
    NOBODY = "nobody: no property can be written"


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
    (JOB_INTERFACE, "Cancel"): Rule.OWNER,
    (JOB_INTERFACE, "Object"): Rule.AFFECTED,
    (HYPERVISOR_INTERFACE, "Event"): Rule.ROOT,
    (HYPERVISOR_INTERFACE, "EventInParts"): Rule.ROOT,
    (f"{_DBUS}.Properties", "Get"): Rule.FREE,
    (f"{_DBUS}.Properties", "GetAll"): Rule.FREE,
    (f"{_DBUS}.Properties", "Set"): Rule.NOBODY,
    (f"{_DBUS}.ObjectManager", "GetManagedObjects"): Rule.FREE,
    (f"{_DBUS}.Introspectable", "Introspect"): Rule.FREE,
    (f"{_DBUS}.Peer", "Ping"): Rule.FREE,
    (f"{_DBUS}.Peer", "GetMachineId"): Rule.FREE,
}


class Effect(StrEnum):
    """What a request may do."""

    TELL = "nothing, but it tells who uses the card"
    LEND = "lends a card, and nobody's desktop ends"
    END_DESKTOP = "ends the caller's own desktop, or the login screen"
    END_OTHERS = "ends the desktop of somebody else"
    END_HOLDERS = "ends the programs that have the card open"
    RISK = "lends a card that is expected to be lost until a reboot, or to hang the machine"
    TAKE = "takes a card back that no guest has"
    EVICT = "ends the virtual machine that has the card"


EFFECTS: Mapping[Effect, str] = {
    Effect.TELL: ACTION_INSPECT,
    Effect.LEND: ACTION_HANDOFF,
    Effect.END_DESKTOP: ACTION_HANDOFF_DISPLAY,
    Effect.END_OTHERS: ACTION_HANDOFF_OTHERS,
    Effect.END_HOLDERS: ACTION_TERMINATE_HOLDERS,
    # An action of its own: lending an idle card is the console user's own business, but a card that is lost is lost to
    # everybody until a reboot, and one that hangs takes the whole machine along. Never kept: each time is another risk.
    Effect.RISK: ACTION_ACCEPT_RISK,
    Effect.TAKE: ACTION_RECLAIM,
    Effect.EVICT: ACTION_EVICT_GUEST,
}


def method_actions(interface: str, member: str) -> tuple[str, ...]:
    """Return the actions of a method that needs the same ones whatever it is called with; raises AccessDeniedError."""
    rule = METHODS.get((interface, member))
    if rule not in {Rule.STATUS, Rule.INSPECT, Rule.INHIBIT}:
        raise AccessDeniedError("Nothing allows this.")
    return (rule.value,)


def request_effects(request: Request, *, others: bool) -> tuple[Effect, ...]:
    """Return all that a request may do, from its options; `others`: the desktop is not the caller's alone.

    Options count whether or not they are needed now: what is open at the moment of asking may be another thing later.
    """
    options = request.options
    if options.dry_run:
        return (Effect.TELL,)
    terminate = options.holders is HolderPolicy.TERMINATE
    if request.operation is Operation.RECLAIM:
        return (Effect.TAKE, Effect.EVICT) if terminate else (Effect.TAKE,)
    desktop = Effect.END_OTHERS if others else Effect.END_DESKTOP
    return (
        desktop if options.stop_display else Effect.LEND,
        *((Effect.END_HOLDERS,) if terminate else ()),
        *((Effect.RISK,) if options.accept_risk else ()),
    )


def request_actions(request: Request, *, others: bool = False) -> tuple[str, ...]:
    """Return the polkit actions that a request needs, all of them."""
    return tuple(EFFECTS[effect] for effect in request_effects(request, others=others))


def may_cancel(owner: int, caller: int) -> bool:
    """Tell whether a user may cancel a job: their own, from whatever connection; root any. Watching is free."""
    return caller in {0, owner}


def may_object(caller: int, desktops: Container[int], *, asked: bool) -> bool:
    """Tell whether a user may object to a job, whoever has started it: one whose own desktop it ends, and who was `asked`.

    Asked is who holds an inhibitor of the mode session, for which polkit was asked (ACTION_INHIBIT). It is a say about
    one's own desktop before anything has happened to it, not a right to cancel: how long the say lasts, and whether there
    is one at all, is the administrator's (session-delay).
    """
    return asked and caller in desktops
