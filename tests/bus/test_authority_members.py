"""Every method of ours, called by somebody whom polkit refuses: nothing is told, nothing happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuhandoff import names
from gpuhandoff.authority.table import METHODS, Rule
from gpuhandoff.messages import Call, RemoteError, Reply, Variant
from gpuhandoff.names import JOB_INTERFACE, JOB_PATH_PREFIX, MANAGER_INTERFACE, MANAGER_PATH
from gpuhandoff.service.interface import interfaces
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.polkit import AUTHORITY
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.sessions import Login
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
    "Object": ("not now",),
    "Event": ("win11", "prepare", "begin", "-", domain_xml()),
    "EventInParts": ("win11", "prepare", "begin", "-", [domain_xml()]),
}
ALL = {value for name, value in vars(names).items() if name.startswith("ACTION_")}
ASKS = [key for key, rule in METHODS.items() if rule in {Rule.STATUS, Rule.INSPECT, Rule.INHIBIT, Rule.REQUEST}]
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
            "Handoff": names.ACTION_HANDOFF_OTHERS,  # the desktop is alice's
            "Reclaim": names.ACTION_RECLAIM,
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


@pytest.mark.parametrize(("uid", "may"), [(1000, True), (0, True), (1001, False), (65534, False)])
def test_a_job_can_be_watched_by_all_and_cancelled_by_its_user_and_root(uid: int, may: bool, tmp_path: Path) -> None:
    """From another connection than the one that started it; what polkit says about handoffs does not matter."""

    async def main() -> None:
        product = await Product(await SCENARIOS["single-nvidia"](), tmp_path).start()
        wait = {"stop-display": Variant("b", True), "wait": Variant("b", False)}
        path = await product.call("Handoff", "sa{sv}", GPU, wait)
        other = product.broker.connect(uid=uid)
        properties = "org.freedesktop.DBus.Properties"
        (shown,) = await other.call(names.BUS_NAME, path, properties, "GetAll", "s", (JOB_INTERFACE,))
        assert (shown["StartedByUid"].value, shown["Result"].value) == (1000, "")
        if may:
            await other.call(names.BUS_NAME, path, JOB_INTERFACE, "Cancel")
        else:
            with pytest.raises(RemoteError, match="started by somebody else") as caught:
                await other.call(names.BUS_NAME, path, JOB_INTERFACE, "Cancel")
            assert caught.value.name == "org.freedesktop.DBus.Error.AccessDenied"
        await product.idle()
        assert (await product.status(GPU))["state"] == ("host" if may else "detached")
        if not may:
            await product.reclaim(GPU)
        await product.stop()

    run(main())


def test_who_logs_in_while_a_password_is_asked_for_is_not_part_of_what_was_allowed(tmp_path: Path) -> None:
    async def main() -> None:
        machine = await SCENARIOS["single-nvidia"]()
        product = await Product(machine, tmp_path).start()
        seen = product.machine.polkit._check

        async def ask(call: Call) -> Reply:
            manager = machine.units.find("display-manager.service")
            assert manager is not None
            assert manager.main is not None
            login = Login("bob", 1001, "kwin_wayland", (GPU,))
            await machine.sessions.open(login, manager.main, machine.display_nodes((GPU,)))
            return await seen(call)

        machine.polkit.methods[AUTHORITY, "CheckAuthorization"] = ("(sa{sv})sa{ss}us", ask)
        with pytest.raises(RemoteError, match=r"desktop of bob as well.*Ask again") as caught:
            await product.call("Handoff", "sa{sv}", GPU, {"stop-display": Variant("b", True)})
        assert caught.value.name == "org.gpuhandoff.Error.NeedsConsent"
        assert {session.login.user for session in machine.sessions.sessions.values()} >= {"alice", "bob"}
        assert product.journals() == []
        machine.polkit.methods[AUTHORITY, "CheckAuthorization"] = ("(sa{sv})sa{ss}us", seen)
        await product.call("Handoff", "sa{sv}", GPU, {"stop-display": Variant("b", True)})
        assert [one.action for one in machine.polkit.questions] == [
            names.ACTION_HANDOFF_DISPLAY,
            names.ACTION_HANDOFF_OTHERS,
        ]
        assert machine.polkit.questions[-1].details["sessions"] == "alice, bob"
        await product.reclaim(GPU)
        await product.stop()

    run(main())


def test_consent_for_little_is_no_consent_for_more(tmp_path: Path) -> None:
    """What asks for more must pass more actions, whatever the order of the options."""

    async def main() -> None:
        product = await started(tmp_path)
        product.machine.polkit.deny(*ALL - {names.ACTION_HANDOFF, names.ACTION_RECLAIM})
        before = product.machine.snapshot()
        greedy: list[tuple[str, dict[str, Variant]]] = [
            ("Handoff", {"stop-display": Variant("b", True)}),
            ("Handoff", {"holders": Variant("s", "terminate")}),
            ("Handoff", {"holders": Variant("s", "terminate"), "stop-display": Variant("b", True)}),
            ("Handoff", {"accept-risk": Variant("b", True)}),
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
    assert set(ARGUMENTS) == {member for interface, member in METHODS if interface in interfaces()}
    assert METHODS[JOB_INTERFACE, "Cancel"] is Rule.OWNER
    assert METHODS[JOB_INTERFACE, "Object"] is Rule.AFFECTED
