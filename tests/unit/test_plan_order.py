"""The ordering rules of a plan, over generated worlds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from gpuhandoff.config import HostSettings
from gpuhandoff.errors import ProblemError
from gpuhandoff.model.plan import Plan, PlannedStep
from gpuhandoff.model.request import HolderPolicy, Hugepages, Options
from gpuhandoff.model.world import Unit, World
from gpuhandoff.plan.display import drives_display
from gpuhandoff.plan.handoff import plan_handoff
from gpuhandoff.plan.stacks import STACKS
from gpuhandoff.steps import STEPS
from tests.support.worlds import options, worlds

ORDER = [
    "inhibit-sleep",
    "load-vfio",
    "stop-display",
    "stop-gpu-services",
    "settle-holders",
    "claim-functions",
    "unbind-consoles",
    "unbind-framebuffers",
    "unload-driver",
    "bind-vfio",
    "confine-host",
    "quiet-host",
    "free-memory",
    "back-guest-memory",
]
ALWAYS = {"inhibit-sleep", "load-vfio", "claim-functions", "bind-vfio"}
SETTINGS = HostSettings(quiet_processes=("baloo_file",))


def planned(world: World, wishes: Options) -> Plan:
    """Return the plan for the first GPU; worlds that refuse are for test_plan_refusal."""
    try:
        return plan_handoff(world, world.gpus[0], wishes, SETTINGS)
    except ProblemError:
        assume(False)
        raise


def step(plan: Plan, name: str) -> PlannedStep | None:
    """Return a step of the plan by name."""
    return next((one for one in plan.steps if one.name == name), None)


@given(worlds(), options())
def test_steps_come_in_the_fixed_order_and_once(world: World, wishes: Options) -> None:
    places = [ORDER.index(one.name) for one in planned(world, wishes).steps]
    assert all(first < second for first, second in pairwise(places))


@given(worlds(), options())
def test_every_planned_step_exists_and_its_arguments_are_json(world: World, wishes: Options) -> None:
    import json

    plan = planned(world, wishes)
    assert {one.name for one in plan.steps} <= set(STEPS)
    for one in plan.steps:
        assert json.loads(json.dumps(one.arguments)) == one.arguments
        assert one.does


@given(worlds(), options())
def test_steps_that_are_never_left_out(world: World, wishes: Options) -> None:
    assert {one.name for one in planned(world, wishes).steps} >= ALWAYS


@given(worlds(), options())
def test_the_display_stops_exactly_when_the_gpu_drives_it(world: World, wishes: Options) -> None:
    assert (step(planned(world, wishes), "stop-display") is not None) == drives_display(world, world.gpus[0])


@given(worlds(), options())
def test_nvidias_services_stop_for_cards_on_its_driver_and_for_no_other(world: World, wishes: Options) -> None:
    stop = step(planned(world, wishes), "stop-gpu-services")
    assert (stop is not None) == (bool(world.services) and world.gpus[0].display.driver == "nvidia")


@given(worlds(), options(), st.booleans())
def test_what_is_stopped_for_another_card_stays_stopped(world: World, wishes: Options, runs: bool) -> None:
    world = replace(world, services=(Unit("ollama.service", "active" if runs else "inactive"),))
    try:
        plan = plan_handoff(world, world.gpus[0], wishes, SETTINGS, stopped={"ollama.service"})
    except ProblemError:
        assume(False)
        raise
    stop = step(plan, "stop-gpu-services")
    assert (stop is not None) == (world.gpus[0].display.driver not in {None, "vfio-pci"})
    if stop is not None:
        assert stop.arguments == {"units": ["ollama.service"]}
        assert stop.does == ("stop ollama.service" if runs else "keep ollama.service stopped")


@given(worlds(), options())
def test_consoles_are_left_alone_when_the_configuration_says_so(world: World, wishes: Options) -> None:
    try:
        plan = plan_handoff(world, world.gpus[0], wishes, HostSettings(consoles="leave"))
    except ProblemError:
        assume(False)
        raise
    assert step(plan, "unbind-consoles") is None


@given(worlds(), options())
def test_all_functions_are_claimed_and_bound_together(world: World, wishes: Options) -> None:
    plan = planned(world, wishes)
    functions = [str(one.address) for one in world.gpus[0].functions]
    for name in ("claim-functions", "bind-vfio"):
        found = step(plan, name)
        assert found is not None
        assert found.arguments["functions"] == functions


@given(worlds(), options())
def test_modules_go_only_when_no_other_gpu_needs_them_and_never_drm(world: World, wishes: Options) -> None:
    unload = step(planned(world, wishes), "unload-driver")
    assume(unload is not None)
    assert unload is not None
    driver = world.gpus[0].display.driver
    modules = unload.arguments["modules"]
    assert not {"drm", "drm_kms_helper"} & set(modules)
    if any(other.display.driver == driver for other in world.gpus[1:]):
        assert modules == []
    else:
        assert modules == list(STACKS.get(driver or "", ()))


@given(worlds(), options())
def test_holders_are_ended_only_with_consent(world: World, wishes: Options) -> None:
    settle = step(planned(world, wishes), "settle-holders")
    if settle is not None:
        assert settle.arguments["terminate"] == (wishes.holders is HolderPolicy.TERMINATE)


@given(worlds(), options())
def test_memory_is_backed_only_when_asked(world: World, wishes: Options) -> None:
    backed = step(planned(world, wishes), "back-guest-memory")
    assert (backed is not None) == (wishes.hugepages is not Hugepages.NONE)


@given(worlds(), st.data())
def test_without_consent_nothing_that_ends_a_session_is_planned(world: World, data: st.DataObject) -> None:
    wishes = data.draw(st.builds(Options, holders=st.sampled_from(list(HolderPolicy))))
    assert step(planned(world, wishes), "stop-display") is None


def test_order_is_that_of_the_design() -> None:
    assert [name for name in STEPS if name in ORDER] == ORDER
