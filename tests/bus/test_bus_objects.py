"""The objects: what is published, announced, introspected, and what is said to whoever asks for something else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gpuhandoff.authority.table import METHODS
from gpuhandoff.messages import Body, Call, Match, RemoteError, Signal, Variant
from gpuhandoff.names import (
    BUS_NAME,
    GPU_INTERFACE,
    GPU_PATH_PREFIX,
    JOB_INTERFACE,
    MANAGER_INTERFACE,
    MANAGER_PATH,
    ROOT_PATH,
)
from gpuhandoff.service import interface as interface_module
from gpuhandoff.service.bus import DBus, connect
from gpuhandoff.service.interface import FILE, OBJECT_MANAGER, PEER, PROPERTIES, Interface, Property, interfaces
from gpuhandoff.service.objects import ApiMismatchError, ObjectTree
from tests.support.bus import PrivateBus
from tests.support.stranger import Stranger

INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"
INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"
READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
JOB = "/org/gpuhandoff/jobs/1"
GPU = GPU_PATH_PREFIX + "0000_01_00_0"
ZERO: dict[str, Any] = {"s": "", "o": "/", "b": False, "u": 0, "i": -1, "t": 0, "d": 0.0, "as": []}


def values(name: str, **others: Any) -> dict[str, Any]:
    """Return some value for every property."""
    return {one: ZERO[about.signature] for one, about in interfaces()[name].properties.items()} | others


async def handler(call: Call) -> Body:
    """Answer with a value of the right type."""
    returns = interfaces()[call.interface].methods[call.member].returns
    return ({} if returns == "a{sv}" else ZERO.get(returns, []),) if returns else ()


@pytest_asyncio.fixture
async def tree(bus: PrivateBus) -> AsyncIterator[ObjectTree]:
    connection = await connect(bus.address)
    tree = ObjectTree(connection)
    for interface, member in METHODS:
        tree.register(interface, member, handler)
    tree.check()
    tree.publish(MANAGER_PATH, MANAGER_INTERFACE, values(MANAGER_INTERFACE, Version="1.2", ApiVersion=1))
    tree.publish(GPU, GPU_INTERFACE, values(GPU_INTERFACE, State="host"))
    tree.serve()
    await connection.request_name(BUS_NAME)
    yield tree
    await connection.close()


@pytest_asyncio.fixture
async def signals(client: DBus) -> list[Signal]:
    seen: list[Signal] = []
    matches = [(PROPERTIES, "PropertiesChanged"), (OBJECT_MANAGER, "InterfacesAdded"), (OBJECT_MANAGER, "InterfacesRemoved")]
    for interface, member in matches:
        await client.subscribe(Match(interface, member), seen.append)
    return seen


async def ask(client: DBus, path: str, interface: str, member: str, signature: str = "", *body: Any) -> Any:
    reply = await client.call(BUS_NAME, path, interface, member, signature, body)
    return reply[0] if reply else None


async def test_properties_are_read(tree: ObjectTree, client: DBus) -> None:
    assert await ask(client, MANAGER_PATH, PROPERTIES, "Get", "ss", MANAGER_INTERFACE, "Version") == Variant("s", "1.2")
    everything = await ask(client, GPU, PROPERTIES, "GetAll", "s", GPU_INTERFACE)
    assert everything["State"] == Variant("s", "host")
    assert {name: one.signature for name, one in everything.items()} == {
        name: one.signature for name, one in interfaces()[GPU_INTERFACE].properties.items()
    }
    assert await ask(client, GPU, PROPERTIES, "GetAll", "s", PEER) == {}


@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "body", "error"),
    [
        (MANAGER_PATH, PROPERTIES, "Set", "ssv", (MANAGER_INTERFACE, "Version", Variant("s", "2")), READ_ONLY),
        (MANAGER_PATH, PROPERTIES, "Set", "ssv", (MANAGER_INTERFACE, "None", Variant("s", "2")), UNKNOWN_PROPERTY),
        (MANAGER_PATH, PROPERTIES, "Get", "ss", (MANAGER_INTERFACE, "None"), UNKNOWN_PROPERTY),
        (MANAGER_PATH, PROPERTIES, "Get", "ss", (GPU_INTERFACE, "State"), UNKNOWN_PROPERTY),
        (MANAGER_PATH, PROPERTIES, "GetAll", "s", ("org.example",), UNKNOWN_PROPERTY),
        (MANAGER_PATH, PROPERTIES, "Get", "s", (MANAGER_INTERFACE,), INVALID_ARGS),
        (MANAGER_PATH, MANAGER_INTERFACE, "Handoff", "s", ("0000:01:00.0",), INVALID_ARGS),
        (MANAGER_PATH, MANAGER_INTERFACE, "Handoff", "sa{ss}", ("", {}), INVALID_ARGS),
        (MANAGER_PATH, MANAGER_INTERFACE, "Status", "s", ("x" * 1_000_000,), INVALID_ARGS),
        (MANAGER_PATH, MANAGER_INTERFACE, "Nothing", "", (), UNKNOWN_METHOD),
        (MANAGER_PATH, GPU_INTERFACE, "Status", "", (), UNKNOWN_METHOD),
        (MANAGER_PATH, OBJECT_MANAGER, "GetManagedObjects", "", (), UNKNOWN_METHOD),
        (GPU, MANAGER_INTERFACE, "Status", "", (), UNKNOWN_METHOD),
        ("/org/gpuhandoff/none", MANAGER_INTERFACE, "Status", "", (), UNKNOWN_METHOD),
        ("/org/gpuhandoff/none", INTROSPECTABLE, "Introspect", "", (), UNKNOWN_METHOD),
        ("/org/gpuhandoff/none", PROPERTIES, "GetAll", "s", (MANAGER_INTERFACE,), UNKNOWN_METHOD),
    ],
)
async def test_what_does_not_exist_has_its_error(
    tree: ObjectTree, client: DBus, path: str, interface: str, member: str, signature: str, body: Body, error: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        await client.call(BUS_NAME, path, interface, member, signature, body)
    assert caught.value.name == error
    assert len(caught.value.message) < 500


async def test_a_wrong_signature_is_told_the_right_one(tree: ObjectTree, client: DBus) -> None:
    with pytest.raises(RemoteError, match=r"Handoff: arguments of type 'sa\{sv\}' are expected, not 's'") as caught:
        await ask(client, MANAGER_PATH, MANAGER_INTERFACE, "Handoff", "s", "")
    assert caught.value.name == INVALID_ARGS


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: everybody else is the private bus's owner")
async def test_an_unknown_interface_stops_at_the_policy_for_others_than_root(tree: ObjectTree, bus: PrivateBus) -> None:
    with Stranger(bus.address) as stranger:
        call = ["org.example.Interface", "Anything"]
        reply = await asyncio.to_thread(stranger.call, BUS_NAME, MANAGER_PATH, *call)
        assert reply.error_name == "org.freedesktop.DBus.Error.AccessDenied"
        reply = await asyncio.to_thread(stranger.call, BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Status")
        assert reply.error_name is None


async def test_the_interface_may_be_left_out(tree: ObjectTree, bus: PrivateBus) -> None:
    with Stranger(bus.address, uid=os.geteuid()) as owner:  # the policy lets nobody else do so
        status = await asyncio.to_thread(owner.call, BUS_NAME, MANAGER_PATH, None, "Status")
        assert not status.error_name
        assert status.signature == "a{sv}"
        pong = await asyncio.to_thread(owner.call, BUS_NAME, MANAGER_PATH, None, "Ping")
        assert not pong.error_name
        assert pong.body == []
        nothing = await asyncio.to_thread(owner.call, BUS_NAME, MANAGER_PATH, None, "Nothing")
        assert nothing.error_name == UNKNOWN_METHOD


async def test_changes_are_announced_and_nothing_else(tree: ObjectTree, client: DBus, signals: list[Signal]) -> None:
    tree.update(GPU, GPU_INTERFACE, {"State": "detached", "Driver": ""})
    tree.update(GPU, GPU_INTERFACE, {"State": "detached"})
    tree.update("/org/gpuhandoff/none", GPU_INTERFACE, {"State": "detached"})
    await ask(client, GPU, PEER, "Ping")
    assert [(signal.path, signal.body) for signal in signals] == [
        (GPU, (GPU_INTERFACE, {"State": Variant("s", "detached")}, []))
    ]


@pytest.mark.parametrize(
    ("emits", "announced"),
    [("true", ({"State": Variant("s", "away")}, [])), ("invalidates", ({}, ["State"])), ("false", None), ("const", None)],
)
async def test_the_xml_says_how_a_change_is_announced(
    tree: ObjectTree,
    client: DBus,
    signals: list[Signal],
    monkeypatch: pytest.MonkeyPatch,
    emits: str,
    announced: tuple[Any, ...] | None,
) -> None:
    declared = interfaces()[GPU_INTERFACE]
    changed = Interface(
        declared.name, declared.methods, declared.signals, {**declared.properties, "State": Property("s", emits)}
    )
    monkeypatch.setitem(interface_module.interfaces(), GPU_INTERFACE, changed)
    tree.update(GPU, GPU_INTERFACE, {"State": "away"})
    await ask(client, GPU, PEER, "Ping")
    assert [signal.body[1:] for signal in signals] == ([] if announced is None else [announced])
    assert await ask(client, GPU, PROPERTIES, "Get", "ss", GPU_INTERFACE, "State") == Variant("s", "away")


async def test_objects_come_and_go_at_the_object_manager(tree: ObjectTree, client: DBus, signals: list[Signal]) -> None:
    job = values(JOB_INTERFACE, Operation="handoff")
    tree.publish(JOB, JOB_INTERFACE, job)
    managed = await ask(client, ROOT_PATH, OBJECT_MANAGER, "GetManagedObjects")
    assert set(managed) == {MANAGER_PATH, GPU, JOB}
    shown = managed[JOB]
    assert shown[JOB_INTERFACE]["Operation"] == Variant("s", "handoff")
    tree.withdraw(JOB)
    tree.withdraw(JOB)
    tree.update(JOB, JOB_INTERFACE, {"Step": "too late"})
    assert JOB not in await ask(client, ROOT_PATH, OBJECT_MANAGER, "GetManagedObjects")
    assert [(signal.path, signal.member, signal.body) for signal in signals] == [
        (ROOT_PATH, "InterfacesAdded", (JOB, shown)),
        (ROOT_PATH, "InterfacesRemoved", (JOB, [JOB_INTERFACE])),
    ]


async def test_a_property_too_few_is_noticed(tree: ObjectTree) -> None:
    with pytest.raises(ApiMismatchError, match="State"):
        tree.publish(GPU_PATH_PREFIX + "0000_02_00_0", GPU_INTERFACE, {"State": "host"})


@pytest.mark.parametrize("path", ["/", "/org", ROOT_PATH, ROOT_PATH + "/gpus", MANAGER_PATH, GPU])
async def test_every_path_of_the_tree_introspects(tree: ObjectTree, client: DBus, path: str) -> None:
    node = ET.fromstring(await ask(client, path, INTROSPECTABLE, "Introspect"))
    children = {
        "/": {"org"},
        "/org": {"gpuhandoff"},
        ROOT_PATH: {"Manager", "gpus"},
        ROOT_PATH + "/gpus": {GPU.split("/")[-1]},
    }
    assert {child.get("name") for child in node.findall("node")} == children.get(path, set())
    assert (path == ROOT_PATH) == (node.find(f"interface[@name='{OBJECT_MANAGER}']") is not None)
    await ask(client, path, PEER, "Ping")


async def test_introspection_is_the_file(tree: ObjectTree, client: DBus) -> None:
    written = {one.get("name"): one for one in ET.parse(FILE).getroot().findall("interface")}
    for path, name in ((MANAGER_PATH, MANAGER_INTERFACE), (GPU, GPU_INTERFACE)):
        node = ET.fromstring(await ask(client, path, INTROSPECTABLE, "Introspect"))
        (shown,) = node.findall(f"interface[@name='{name}']")
        assert outline(shown) == outline(written[name])


def outline(element: ET.Element) -> Any:
    return (element.tag, dict(element.attrib), [outline(child) for child in element])


async def test_busctl_and_gdbus_understand_it(tree: ObjectTree, bus: PrivateBus) -> None:
    busctl = ["busctl", "--system", "--no-pager"]
    shown = await run(bus, *busctl, "introspect", BUS_NAME, MANAGER_PATH)
    assert "Handoff" in shown
    assert ".Version" in shown
    assert "const" in shown
    assert MANAGER_PATH in await run(bus, *busctl, "tree", BUS_NAME)
    assert "1.2" in await run(bus, *busctl, "get-property", BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, "Version")


async def run(bus: PrivateBus, *command: str) -> str:
    finished = await asyncio.to_thread(
        subprocess.run, command, env=bus.environment(), capture_output=True, text=True, timeout=20, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


async def test_a_daemon_whose_parts_do_not_fit_does_not_start(service: DBus, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ObjectTree(service)
    for interface, member in list(METHODS)[1:]:
        tree.register(interface, member, handler)
    forgotten = next(iter(METHODS))
    with pytest.raises(ApiMismatchError, match=f"{forgotten[1]} is in the XML, but there is no handler"):
        tree.check()
    tree.register(*forgotten, handler)
    tree.check()
    tree.register(MANAGER_INTERFACE, "Secret", handler)
    with pytest.raises(ApiMismatchError, match="Secret has a handler, but is not in the XML"):
        tree.check()
    tree = ObjectTree(service)
    for interface, member in METHODS:
        tree.register(interface, member, handler)
    monkeypatch.delitem(METHODS, forgotten)
    with pytest.raises(ApiMismatchError, match=f"{forgotten[1]} is in the XML, but there is no row"):
        tree.check()
