"""The daemon as a process on a system bus: what users other than root can make it say, and that they cannot hurt it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message, MessageFlag, MessageType, Variant

from gpuhandoff.authority.table import METHODS
from gpuhandoff.names import BUS_NAME, GPU_PATH_PREFIX, JOB_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH, ROOT_PATH
from gpuhandoff.service.interface import interfaces
from gpuhandoff.simulation.daemon import NAME, PATH
from tests.support.bus import PATIENCE, PrivateBus, private_bus, stop
from tests.support.stranger import Stranger

GPU = "0000:01:00.0"
INTERNAL = "org.gpuhandoff.Error.Failed"
TEXTS = ["", GPU, "x", "0000:01:00.0\n", "../../etc/passwd", "%s%n", "ä" * 300, "0000:ff:1f.7", "-1", "x" * 1_000_000]


class Running:
    """A daemon over a simulated machine, its bus, and its log."""

    def __init__(self, bus: PrivateBus, process: subprocess.Popen[bytes], log: Path) -> None:
        self.bus = bus
        self.process = process
        self.log = log


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from start(tmp_path_factory.mktemp("daemon") / "log")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    """One that a test may break."""
    yield from start(tmp_path / "log")


def start(log: Path) -> Iterator[Running]:
    with private_bus() as bus, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpuhandoff", "--simulate", "single-nvidia"],
            env=bus.environment(),
            stdout=output,
            stderr=output,
        )
        try:
            until = time.monotonic() + PATIENCE
            while b"ready" not in log.read_bytes():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(log.read_text())
                time.sleep(0.02)
            yield Running(bus, process, log)
        finally:
            stop(process)


@pytest.fixture
def stranger(running: Running) -> Iterator[Stranger]:
    with Stranger(running.bus.address) as one:
        yield one


def manager(stranger: Stranger, member: str, signature: str = "", *body: Any) -> Message:
    return stranger.call(BUS_NAME, MANAGER_PATH, MANAGER_INTERFACE, member, signature, body)


def answers(stranger: Stranger) -> bool:
    return manager(stranger, "Status").message_type is MessageType.METHOD_RETURN


OPTIONS: list[dict[str, Variant]] = [
    {},
    {"nonsense": Variant("b", True)},
    {"wait": Variant("s", "yes")},
    {"stop-display": Variant("u", 1)},
    {"holders": Variant("s", "x" * 100_000)},
    {"cpus": Variant("s", "0-99999999999999999999")},
    {"cpus": Variant("s", ",".join(["0-8191"] * 10_000))},
    {"memory": Variant("t", 2**64 - 1)},
    {"timeout": Variant("u", 2**32 - 1), "dry-run": Variant("b", True)},
    {"vm": Variant("s", "../\u202e\x07\n")},
    {"vm": Variant("v", Variant("v", Variant("s", "deep")))},
    {"": Variant("a{sv}", {"": Variant("as", [])})},
    {f"key{number}": Variant("b", True) for number in range(5000)},
]


def inputs() -> Iterator[tuple[str, str, list[Any]]]:
    for text in TEXTS:
        for member in ("Handoff", "Reclaim"):
            yield member, "sa{sv}", [text, {"dry-run": Variant("b", True)}]
        for member in ("Plan", "Preview"):
            yield member, "ssa{sv}", [text, "handoff", {}]
            yield member, "ssa{sv}", [GPU, text, {}]
        yield "Holders", "s", [text]
        yield "History", "su", [text, 2**32 - 1]
        yield "Inhibit", "sss", [text, "why", "delay"]
        yield "Inhibit", "sss", ["who", text, "block"]
        yield "Inhibit", "sss", ["who", "why", text]
    for options in OPTIONS:
        yield "Handoff", "sa{sv}", [GPU, {"dry-run": Variant("b", True), **options}]
        yield "Reclaim", "sa{sv}", [GPU, {"dry-run": Variant("b", True), **options}]
        yield "Plan", "ssa{sv}", [GPU, "reclaim", options]
        yield "Preview", "ssa{sv}", [GPU, "handoff", options]
        yield "Report", "a{sv}", [options]
    for number in (0, 1, 2**32 - 1):
        yield "Uninhibit", "u", [number]
    yield "Status", "", []
    yield "Diagnose", "", []


def test_no_input_is_an_internal_error(running: Running, stranger: Stranger) -> None:
    covered = set()
    for member, signature, body in inputs():
        began = time.monotonic()
        reply = manager(stranger, member, signature, *body)
        covered.add(member)
        assert time.monotonic() - began < 2, (member, str(body)[:100])
        if reply.message_type is MessageType.ERROR:
            said = (member, str(body)[:100], reply.error_name, reply.body)
            assert reply.error_name != INTERNAL, said
            assert len(reply.body[0]) < 1000, said
            assert "Traceback" not in reply.body[0], said
            assert reply.body[0].replace("\n", "").isprintable(), said
    assert covered == {member for interface, member in METHODS if interface == MANAGER_INTERFACE}
    assert "Traceback" not in running.log.read_text()


NOT_FOUND = "org.gpuhandoff.Error.NotFound"
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
MEGABYTE = "x" * 1_000_000
BAD: list[tuple[str, str, list[Any], str, str]] = [
    *(
        (member, signature, [gpu, *rest], error, word)
        for member, signature, rest in (
            ("Handoff", "sa{sv}", [{}]),
            ("Reclaim", "sa{sv}", [{}]),
            ("Plan", "ssa{sv}", ["handoff", {}]),
            ("Preview", "ssa{sv}", ["handoff", {}]),
            ("Holders", "s", []),
            ("History", "su", [1]),
        )
        for gpu, error, word in (
            ("0000:ff:1f.7", NOT_FOUND, "0000:ff:1f.7"),
            ("../../etc/passwd", INVALID, "gpu: "),
            (MEGABYTE, INVALID, "gpu: "),
        )
        if (member, error) != ("History", NOT_FOUND)  # a card that is no longer there has a past all the same
    ),
    *(
        (member, "sa{sv}", [GPU, options], INVALID, word)
        for member in ("Handoff", "Reclaim")
        for options, word in (
            ({"nonsense": Variant("b", True)}, "nonsense"),
            ({"wait": Variant("s", "yes")}, "wait"),
            ({"holders": Variant("s", MEGABYTE)}, "holders"),
            ({MEGABYTE: Variant("b", True)}, "no such option"),
        )
    ),
    ("Plan", "ssa{sv}", [GPU, "sideways", {}], INVALID, "direction"),
    ("Preview", "ssa{sv}", [GPU, "sideways", {}], INVALID, "direction"),
    ("Report", "a{sv}", [{"nonsense": Variant("b", True)}], INVALID, "nonsense"),
    ("Inhibit", "sss", ["who", "why", "sometimes"], INVALID, "mode"),
    ("Inhibit", "sss", [MEGABYTE, "why", "block"], INVALID, "who"),
    ("Inhibit", "sss", ["who", "", "block"], INVALID, "why"),
    ("Uninhibit", "u", [4711], NOT_FOUND, "4711"),
]


def test_bad_input_is_refused_with_its_reason_and_nothing_changes(running: Running, stranger: Stranger) -> None:
    def snapshot() -> str:
        return str(stranger.call(NAME, PATH, NAME, "Snapshot").body[0])

    before = snapshot()
    for member, signature, body, error, word in BAD:
        reply = manager(stranger, member, signature, *body)
        said = (member, str(body)[:100], reply.error_name, reply.body)
        assert reply.error_name == error, said
        assert word in reply.body[0], said
    job = stranger.call(BUS_NAME, "/org/gpuhandoff/jobs/4711", JOB_INTERFACE, "Cancel")
    assert job.error_name == "org.freedesktop.DBus.Error.UnknownMethod"
    assert snapshot() == before
    named = {member for member, *_ in BAD} | {"Status", "Diagnose"}
    assert named == {member for interface, member in METHODS if interface == MANAGER_INTERFACE}


@pytest.mark.parametrize("signature", ["", "s", "a{sv}", "sa{sv}", "ssa{sv}", "sss", "su", "u", "v", "ay", "(s)"])
def test_every_method_refuses_other_types(running: Running, stranger: Stranger, signature: str) -> None:
    some: dict[str, list[Any]] = {
        "": [], "s": ["x"], "a{sv}": [{}], "sa{sv}": ["x", {}], "ssa{sv}": ["x", "x", {}], "sss": ["x", "x", "x"],
        "su": ["x", 1], "u": [1], "v": [Variant("s", "x")], "ay": [b"x"], "(s)": [["x"]],
    }  # fmt: skip
    for member, method in interfaces()[MANAGER_INTERFACE].methods.items():
        if method.takes != signature:
            reply = manager(stranger, member, signature, *some[signature])
            assert reply.error_name == "org.freedesktop.DBus.Error.InvalidArgs"
            assert f"'{method.takes}'" in reply.body[0]


def test_what_everybody_may_see(running: Running, stranger: Stranger) -> None:
    managed = stranger.call(BUS_NAME, ROOT_PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects").body[0]
    assert MANAGER_PATH in managed
    assert GPU_PATH_PREFIX + "0000_01_00_0" in managed
    status = manager(stranger, "Status").body[0]
    assert status[GPU].value["state"].value == "host"


def test_a_flood_of_calls_is_survived_and_others_are_served(running: Running) -> None:
    message = Message(destination=BUS_NAME, path=MANAGER_PATH, interface=MANAGER_INTERFACE, member="Status")
    with Stranger(running.bus.address) as flooding, Stranger(running.bus.address) as patient:
        for _ in range(2000):
            flooding.send(message)
        assert answers(patient)
        replies = flooding.replies(2000)
    errors = {reply.error_name for reply in replies if reply.message_type is MessageType.ERROR}
    assert errors <= {"org.freedesktop.DBus.Error.LimitsExceeded"}
    assert running.process.poll() is None


def test_a_caller_that_hangs_up_in_the_middle(running: Running, stranger: Stranger) -> None:
    for _ in range(50):
        with Stranger(running.bus.address) as hasty:
            hasty.send(
                Message(
                    destination=BUS_NAME,
                    path=MANAGER_PATH,
                    interface=MANAGER_INTERFACE,
                    member="Holders",
                    signature="s",
                    body=[GPU],
                    flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION,
                )
            )
    assert answers(stranger)
    assert "Traceback" not in running.log.read_text()


def test_inhibitors_are_limited_and_end_with_their_caller(running: Running, stranger: Stranger) -> None:
    with Stranger(running.bus.address) as greedy:
        replies = [manager(greedy, "Inhibit", "sss", "who", "why", "block") for _ in range(20)]
        assert {reply.error_name for reply in replies} == {None, "org.freedesktop.DBus.Error.LimitsExceeded"}
        refused = manager(stranger, "Handoff", "sa{sv}", GPU, {"stop-display": Variant("b", True)})
        assert refused.error_name == "org.gpuhandoff.Error.Inhibited"

    def inhibited() -> bool:
        body = ["s", "s"], [MANAGER_INTERFACE, "Inhibited"]
        reply = stranger.call(BUS_NAME, MANAGER_PATH, "org.freedesktop.DBus.Properties", "Get", "".join(body[0]), body[1])
        return bool(reply.body[0].value)

    until_true(lambda: not inhibited())


def until_true(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_daemon_ends_with_the_bus(own: Running) -> None:
    """So that systemd starts it again; GPUs stay where they are meanwhile."""
    own.bus.kill()
    assert own.process.wait(PATIENCE) == 1
    assert "Traceback" not in own.log.read_text()


def test_the_daemon_ends_when_it_is_told(own: Running) -> None:
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(PATIENCE) == 0
    assert "Traceback" not in own.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_only_root_has_the_name(bus: PrivateBus) -> None:
    dbus = "org.freedesktop.DBus"
    with Stranger(bus.address) as stranger:
        reply = await asyncio.to_thread(stranger.call, dbus, "/", dbus, "RequestName", "su", [BUS_NAME, 4])
    assert reply.error_name == "org.freedesktop.DBus.Error.AccessDenied"
