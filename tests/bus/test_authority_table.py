"""The table: which actions a request needs, and that nothing is missing."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from gpuhandoff import names
from gpuhandoff.authority.table import EFFECTS, METHODS, Effect, Rule, may_object, request_actions
from gpuhandoff.model.request import HolderPolicy, Operation, Options, Request
from gpuhandoff.service.interface import interfaces, standard_interfaces
from tests.support.polkit import POLICY

TERMINATE = HolderPolicy.TERMINATE


@pytest.mark.parametrize(
    ("operation", "options", "actions"),
    [
        (Operation.HANDOFF, Options(), ("handoff",)),
        (Operation.HANDOFF, Options(stop_display=True), ("handoff-display",)),
        (Operation.HANDOFF, Options(holders=TERMINATE), ("handoff", "terminate-holders")),
        (Operation.HANDOFF, Options(stop_display=True, holders=TERMINATE), ("handoff-display", "terminate-holders")),
        (Operation.HANDOFF, Options(stop_display=True, holders=TERMINATE, dry_run=True), ("inspect",)),
        (Operation.HANDOFF, Options(accept_risk=True), ("handoff", "accept-risk")),
        (
            Operation.HANDOFF,
            Options(stop_display=True, holders=TERMINATE, accept_risk=True),
            ("handoff-display", "terminate-holders", "accept-risk"),
        ),
        (Operation.RECLAIM, Options(), ("reclaim",)),
        (Operation.RECLAIM, Options(holders=TERMINATE), ("reclaim", "evict-guest")),
        (Operation.RECLAIM, Options(holders=TERMINATE, dry_run=True), ("inspect",)),
    ],
)
def test_actions_follow_from_the_options_alone(operation: Operation, options: Options, actions: tuple[str, ...]) -> None:
    wanted = tuple(f"org.gpuhandoff.{action}" for action in actions)
    assert request_actions(Request(operation, None, options)) == wanted


def test_other_peoples_desktops_take_another_action() -> None:
    options = Options(stop_display=True, accept_risk=True)
    actions = request_actions(Request(Operation.HANDOFF, None, options), others=True)
    assert actions == (names.ACTION_HANDOFF_OTHERS, names.ACTION_ACCEPT_RISK)
    idle = request_actions(Request(Operation.HANDOFF, None, Options()), others=True)
    assert idle == (names.ACTION_HANDOFF,)


def test_only_who_was_asked_about_their_own_desktop_objects() -> None:
    own = {1000: "alice"}
    assert may_object(1000, own, asked=True)
    assert not may_object(1000, own, asked=False)
    assert not may_object(1001, own, asked=True)
    assert not may_object(0, own, asked=True)
    assert not may_object(1000, {}, asked=True)


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    known = {**interfaces(), **standard_interfaces()}
    assert set(METHODS) == {(name, member) for name, one in known.items() for member in one.methods}


def test_the_policy_file_has_our_actions_and_no_others() -> None:
    ours = {value for name, value in vars(names).items() if name.startswith("ACTION_")}
    assert {element.get("id") for element in ET.parse(POLICY).getroot().iter("action")} == ours
    assert {rule.value for rule in Rule} - ours == {
        Rule.REQUEST.value, Rule.OWNER.value, Rule.AFFECTED.value, Rule.ROOT.value, Rule.FREE.value, Rule.NOBODY.value
    }  # fmt: skip
    assert set(EFFECTS) == set(Effect)
    assert {rule.value for rule in Rule} & ours | set(EFFECTS.values()) == ours


DEFAULTS = {
    "status": "yes yes yes",
    "inspect": "auth_admin auth_admin yes",
    "handoff": "auth_admin auth_admin yes",
    "handoff-display": "auth_admin auth_admin auth_admin_keep",
    "handoff-others": "auth_admin auth_admin auth_admin",
    "accept-risk": "auth_admin auth_admin auth_admin",
    "terminate-holders": "auth_admin auth_admin auth_admin",
    "reclaim": "auth_admin auth_admin yes",
    "evict-guest": "auth_admin auth_admin auth_admin",
    "inhibit": "no yes yes",
}


def test_the_defaults_are_those_of_the_design() -> None:
    found = {}
    for action in ET.parse(POLICY).getroot().iter("action"):
        defaults = {element.tag: element.text or "" for element in action.iter()}
        short = str(action.get("id")).removeprefix("org.gpuhandoff.")
        found[short] = " ".join(defaults[f"allow_{who}"] for who in ("any", "inactive", "active"))
    assert found == DEFAULTS
