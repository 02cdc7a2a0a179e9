"""Every method of ours, called by somebody whom polkit refuses: nothing is told, nothing happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuhandoff import names
from gpuhandoff.authority.table import METHODS, Rule
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.names import JOB_INTERFACE, JOB_PATH_PREFIX, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.service.interface import interfaces
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.snapshot import differences
from tests.support.domains import domain_xml
from tests.support.product import Product

GPU = "0000:01:00.0"
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "Handoff": (GPU, {"stop-display": Variant("b", True)}),
    "Reclaim": (GPU, {}),
    "Status": (),
    "Plan": (GPU, "handoff", {}),
    "Preview": (GPU, "handoff", {}),
    "Holders": (GPU,),
    "Diagnose": (),
    "History": ("", 0),
    "Report": ({"names": Variant("b", True)},),
    "Inhibit": ("somebody", "something", "block"),
    "Uninhibit": (1,),
    "Cancel": (),
    "Event": ("win11", "prepare", "begin", "-", domain_xml()),
    "EventInParts": ("win11", "prepare", "begin", "-", [domain_xml()]),
}
ALL = {value for name, value in vars(names).items() if name.startswith("ACTION_")}
ASKS = [key for key, rule in METHODS.items() if rule not in {Rule.OWNER, Rule.ROOT}]
ROOTS = [key for key, rule in METHODS.items() if rule is Rule.ROOT]


async def started(directory: Path) -> Product:
    """Return a product whose GPU has gone and come back, so that there is a job, and which refuses everybody now."""
    product = await Product(await SCENARIOS["single-nvidia"](), directory).start()
    await product.handoff(GPU)
    await product.reclaim(GPU)
    return product


async def call(product: Product, interface: str, member: str) -> None:
    path = JOB_PATH_PREFIX + "1" if interface == JOB_INTERFACE else MANAGER_PATH
    signature = interfaces()[interface].methods[member].takes
    stranger = product.broker.connect(uid=1001)
    await stranger.call(names.BUS_NAME, path, interface, member, signature, ARGUMENTS[member])


@pytest.mark.parametrize(("interface", "member"), ASKS)
def test_who_is_refused_gets_nothing(interface: str, member: str, tmp_path: Path) -> None:
    async def main() -> None:
        product = await started(tmp_path)
        product.machine.polkit.deny(*ALL)
        before, jobs = product.machine.snapshot(), len(product.machine.polkit.questions)
        with pytest.raises(RemoteError) as caught:
            await call(product, interface, member)
        assert caught.value.name == "org.freedesktop.DBus.Error.AccessDenied"
        assert len(product.machine.polkit.questions) > jobs
        assert differences(before, product.machine.snapshot()) == []
        assert product.journals() == []
        await product.stop()

    run(main())


@pytest.mark.parametrize(("interface", "member"), ASKS)
def test_the_question_is_about_the_caller_and_the_action_of_the_table(interface: str, member: str, tmp_path: Path) -> None:
    async def main() -> None:
        product = await started(tmp_path)
        product.machine.polkit.questions.clear()
        product.machine.polkit.deny(*ALL)
        with pytest.raises(RemoteError):
            await call(product, interface, member)
        (question,) = product.machine.polkit.questions
        assert question.sender != product.client.unique_name
        rule = METHODS[interface, member]
        expected = {
            "Handoff": names.ACTION_HANDOFF_DISPLAY,
            "Reclaim": names.ACTION_RECLAIM,
            "Cancel": names.ACTION_HANDOFF_DISPLAY,
        }
        assert question.action == (expected[member] if rule is Rule.REQUEST else rule.value)
        await product.stop()

    run(main())


@pytest.mark.parametrize(("interface", "member"), ROOTS)
def test_what_is_for_root_polkit_cannot_allow_to_others(interface: str, member: str, tmp_path: Path) -> None:
    """The bus policy says so as well (test_bus_hypervisor); this is the second lock."""

    async def main() -> None:
        product = await started(tmp_path)
        before, asked = product.machine.snapshot(), len(product.machine.polkit.questions)
        with pytest.raises(RemoteError) as caught:
            await call(product, interface, member)
        assert caught.value.name == "org.freedesktop.DBus.Error.AccessDenied"
        assert len(product.machine.polkit.questions) == asked
        assert differences(before, product.machine.snapshot()) == []
        assert product.journals() == []
        await product.stop()

    run(main())


def test_only_its_caller_gives_an_inhibitor_back(tmp_path: Path) -> None:
    async def main() -> None:
        product = await started(tmp_path)
        assert await product.call("Inhibit", "sss", "somebody", "something", "block") == 1
        with pytest.raises(RemoteError) as caught:
            await call(product, MANAGER_INTERFACE, "Uninhibit")
        assert caught.value.name == "org.gpuhandoff.Error.NotFound"
        await product.call("Uninhibit", "u", 1)
        await product.stop()

    run(main())


def test_consent_for_little_is_no_consent_for_more(tmp_path: Path) -> None:
    """What asks for more must pass more actions, whatever the order of the options."""

    async def main() -> None:
        product = await started(tmp_path)
        product.machine.polkit.deny(names.ACTION_HANDOFF_DISPLAY, names.ACTION_TERMINATE_HOLDERS, names.ACTION_EVICT_GUEST)
        before = product.machine.snapshot()
        greedy: list[tuple[str, dict[str, Variant]]] = [
            ("Handoff", {"stop-display": Variant("b", True)}),
            ("Handoff", {"holders": Variant("s", "terminate")}),
            ("Handoff", {"holders": Variant("s", "terminate"), "stop-display": Variant("b", True)}),
            ("Reclaim", {"holders": Variant("s", "terminate")}),
        ]
        for member, options in greedy:
            with pytest.raises(RemoteError) as caught:
                await product.call(member, "sa{sv}", GPU, options)
            assert caught.value.name == "org.freedesktop.DBus.Error.AccessDenied"
        assert differences(before, product.machine.snapshot()) == []
        await product.stop()

    run(main())


def test_nothing_is_missing_here() -> None:
    assert set(ARGUMENTS) == {member for _, member in METHODS}
    assert (JOB_INTERFACE, "Cancel") in ASKS
