"""Everything that reads what somebody else wrote, fed with what nobody would write: `./run fuzz MINUTES`.

A target takes one input and raises for a finding: what it reads may be refused as its callers expect, and in no other way.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbus_next import Message
from dbus_next import Variant as DBusVariant
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gpuhandoff import names
from gpuhandoff.config import ConfigurationError, load
from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.history import line
from gpuhandoff.hypervisor.domain import Domain
from gpuhandoff.hypervisor.parse import parse_domain
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.service.bus.reader import Reader
from gpuhandoff.service.interface import interfaces, standard_interfaces
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.signatures import check
from gpuhandoff.survey import survey
from gpuhandoff.survey.belonging import belonging
from gpuhandoff.transaction.record import parse
from tests.support.domains import domain_xml
from tests.support.product import Product

CARD = PciAddress(0, 1, 0, 0)
PIECES = [
    "",
    "\0",
    "\x1b[2J",
    "\n",
    "'",
    '"',
    "<",
    ">",
    "&a;",
    "{",
    "}",
    "[",
    "]",
    "=",
    "-1",
    "0x",
    "1e999",
    "9" * 5000,
    "ä\ud800",
]
PIECES += ["true", "null", "%n", "../", "<a>" * 70, "[" * 2000, "0-8191", "0000:01:00.0", "\u202e", "<!DOCTYPE x>", "\x7f"]


def mutated(*seeds: str) -> st.SearchStrategy[str]:
    """Return texts that are almost one of these."""
    edit = st.tuples(st.integers(0, 4000), st.integers(0, 40), st.sampled_from(PIECES) | st.text(max_size=6))
    return st.builds(_edit, st.sampled_from(seeds), st.lists(edit, max_size=6)) | st.text(max_size=200)


def _edit(text: str, edits: list[tuple[int, int, str]]) -> str:
    for place, length, piece in edits:
        start = place % (len(text) + 1)
        text = text[:start] + piece + text[start + length :]
    return text


def a_message() -> bytes:
    options = {
        "vm": DBusVariant("s", "win11"),
        "deep": DBusVariant("v", DBusVariant("a{sv}", {"x": DBusVariant("ay", b"y")})),
    }
    message = Message(
        names.BUS_NAME,
        names.MANAGER_PATH,
        names.MANAGER_INTERFACE,
        "Handoff",
        signature="sa{sv}",
        body=["", options],
        serial=7,
    )
    return bytes(message._marshall())  # type: ignore[no-untyped-call]


def spoiled(data: bytes) -> st.SearchStrategy[bytes]:
    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 8), st.binary(max_size=8))
    return st.lists(edit, min_size=1, max_size=5).map(lambda edits: _spoil(data, edits))


def _spoil(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for start, length, piece in edits:
        data = data[:start] + piece + data[start + length :]
    return data


def read_message(data: bytes) -> None:
    """A message as the bus would never pass it on."""
    reader = Reader(io.BytesIO(data))  # type: ignore[no-untyped-call]
    with contextlib.suppress(EOFError):
        if reader.is_here():
            reader.sender()
            reader.first_text()
            with contextlib.suppress(Exception):  # what is unreadable is skipped, whatever dbus-next says of it
                reader.unmarshall()  # type: ignore[no-untyped-call]
            with contextlib.suppress(Exception):
                reader.head()


def read_domain(text: str) -> None:
    refusal = ""
    try:
        domain = parse_domain(text)
    except InvalidArgsError as error:
        refusal, domain = error.message, Domain()
    assert refusal.isprintable()
    assert len(refusal) < 300
    assert 0 <= domain.memory <= 1 << 60
    assert all(0 <= cpu <= 8191 for cpu in domain.pins)


def read_journal(text: str) -> None:
    record = parse(text, CARD)
    if record is not None:
        assert all(isinstance(entry.arguments, dict) and isinstance(entry.saved, dict) for entry in record.entries)
        assert list(record.to_undo()) == [one for one in reversed(record.entries) if not one.undone]


def read_history(data: bytes) -> None:
    move = line.read(data)
    if move is not None:
        assert line.read(line.write(move)) is not None


def read_configuration(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "gpuhandoff.toml")
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        sentence = ""
        try:
            load(file, Path(directory, "conf.d")).options_for(CARD, "win11")
        except ConfigurationError as error:
            sentence = str(error)
    assert sentence.isprintable()
    assert len(sentence) < 2000


def read_machine(garbage: list[tuple[int, str]]) -> None:
    """Attributes of the kernel that say anything at all."""

    async def main() -> None:
        machine = await SCENARIOS["single-nvidia"]()
        host = simulated_host(machine, LoopbackBroker().connect())
        asked = 0
        read = host.kernel.read
        spoil = dict(garbage)

        def lie(path: str) -> str:
            nonlocal asked
            asked += 1
            return spoil.get(asked, "") if asked in spoil else read(path)

        host.kernel.read = lie  # type: ignore[method-assign]
        with contextlib.suppress(OSError, RemoteError):
            await survey(host)

    run(main())


def read_cgroup(text: str) -> None:
    """Where a process is: anybody makes cgroups by any name."""
    found = belonging(text)
    assert all(one.isprintable() for one in (found.unit, found.app, found.session, found.container))


def values(signature: str) -> st.SearchStrategy[Any]:
    """Return values of a D-Bus type."""
    text = st.sampled_from(["", "0000:01:00.0", "handoff", "win11", "block", names.MANAGER_INTERFACE, *PIECES]) | st.text(
        max_size=9
    )
    match signature:
        case "s":
            return text
        case "u":
            return st.integers(0, 2**32 - 1)
        case "v":
            return st.sampled_from(["s", "u", "b", "t", "as"]).flatmap(
                lambda one: st.builds(Variant, st.just(one), values(one))
            )
        case "b":
            return st.booleans()
        case "t":
            return st.integers(0, 2**64 - 1)
        case "as":
            return st.lists(text, max_size=4)
        case "a{sv}":
            return st.dictionaries(st.sampled_from(OPTIONS) | text, values("v"), max_size=5)
    raise ValueError(signature)


OPTIONS = [
    "wait",
    "vm",
    "stop-display",
    "holders",
    "cpus",
    "memory",
    "hugepages",
    "quiet",
    "accept-risk",
    "timeout",
    "lease",
]
OPTIONS += ["guest-timeout", "dry-run", "interactive", "names"]
TAKES = {
    (interface, member): method.takes
    for interface, one in {**interfaces(), **standard_interfaces()}.items()
    for member, method in one.methods.items()
}
PATHS = [names.MANAGER_PATH, names.ROOT_PATH, "/", names.GPU_PATH_PREFIX + "0000_01_00_0", names.JOB_PATH_PREFIX + "1"]


def parts(signature: str) -> list[str]:
    """Return the types of a method's arguments."""
    found: list[str] = []
    while signature:
        one = next(kind for kind in ("a{sv}", "as", signature[0]) if signature.startswith(kind))
        found.append(one)
        signature = signature[len(one) :]
    return found


def calls() -> st.SearchStrategy[list[Any]]:
    one = st.sampled_from(sorted(TAKES)).flatmap(
        lambda key: st.tuples(
            st.just(key), st.sampled_from(PATHS), st.tuples(*(values(kind) for kind in parts(TAKES[key]))), st.booleans()
        )
    )
    return st.lists(one, min_size=1, max_size=12)


def dispatch(asked: list[Any]) -> None:
    """Calls of every method with arguments of the right types, by two users."""

    async def main(directory: Path) -> None:
        product = await Product(await SCENARIOS["igpu-dgpu"](), directory).start()
        callers = [product.client, product.broker.connect(uid=0)]
        for (interface, member), path, body, root in asked:
            try:
                check(TAKES[interface, member], body)
            except ValueError:
                continue
            call = callers[root].call(names.BUS_NAME, path, interface, member, TAKES[interface, member], body, timeout=600)
            refusal = ("", "")
            try:
                await call
            except RemoteError as error:
                refusal = (error.name, error.message)
            assert refusal[0] != names.ERROR_PREFIX + "Failed", (interface, member, body, refusal[1])
        await product.idle()
        for address in [str(gpu.address) for gpu in product.daemon.fleet.world.gpus] if product.daemon else []:
            with contextlib.suppress(RemoteError):
                await product.call("Reclaim", "sa{sv}", address, {"holders": Variant("s", "terminate")})
        assert (await product.status("0000:01:00.0"))["state"] in {"host", "detached"}
        await product.stop()

    with tempfile.TemporaryDirectory() as directory:
        run(main(Path(directory)))


JOURNAL = "\n".join(
    json.dumps(one)
    for one in (
        {"journal": 2, "boot": "b", "job": 1, "operation": "handoff", "vm": "w", "steps": 2, "nodes": ["/dev/dri/card0"]},
        {"will": 0, "step": "inhibit-sleep", "arguments": {"gpu": "x"}, "saved": {}},
        {"did": 0},
        {"held": True, "at": 12.5},
        {"guest": {"pid": 7, "start_time": 8, "name": "qemu", "uid": 9}},
        {"undoing": "why"},
        {"stuck": 0, "message": "m"},
    )
)
HISTORY = b'{"move":1,"gpu":"0000:01:00.0","operation":"handoff","why":"asked","began":1,"boot":"b","uid":0,"job":1}'
CGROUPS = (
    r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.mozilla.firefox\x2d1-17.scope",
    "/user.slice/user-1000.slice/session-2.scope",
    "/system.slice/docker-0123456789abcdef0123.scope",
    "/lxc.payload.web/init.scope",
)
TOML = """[host]
gpu-services = ["nvidia-persistenced.service"]
quiet-units = ["a.service"]
reclaim-grace = 10
[defaults]
stop-display = true
cpus = "0-3,8"
memory = "16 GiB"
[gpu."0000:01:00.0"]
holders = "terminate"
[vm."win11"]
hugepages = "static"
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What is fed, and with what."""

    feed: Callable[[Any], None]
    inputs: st.SearchStrategy[Any]


TARGETS = {
    "messages": Target(read_message, spoiled(a_message()) | st.binary(max_size=200)),
    "dispatch": Target(dispatch, calls()),
    "xml": Target(read_domain, mutated(domain_xml(), domain_xml(memory=16 << 20, pins=("2", "4-5"), emulator="0-1"))),
    "journal": Target(read_journal, mutated(JOURNAL)),
    "history": Target(read_history, spoiled(HISTORY)),
    "configuration": Target(read_configuration, mutated(TOML)),
    "cgroups": Target(read_cgroup, mutated(*CGROUPS)),
    "sysfs": Target(
        read_machine,
        st.lists(st.tuples(st.integers(1, 300), st.sampled_from(PIECES) | st.text(max_size=20)), min_size=1, max_size=12),
    ),
}


def feed(name: str, examples: int, number: int | None = None) -> None:
    """Feed one target with so many inputs; raises what it raises."""
    target = TARGETS[name]

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def one(given_input: Any) -> None:
        target.feed(given_input)

    (one if number is None else seed(number)(one))()


def main() -> int:
    """Feed all targets in turn for some minutes; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="./run fuzz", description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all of them by default")
    given_arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chosen = given_arguments.targets or list(TARGETS)
    end, number = time.monotonic() + given_arguments.minutes * 60, time.time_ns() % 1_000_000_000
    spent, fed = dict.fromkeys(chosen, 0.0), dict.fromkeys(chosen, 0)
    while time.monotonic() < end:
        name = min(chosen, key=lambda one: spent[one])
        examples = 50 if name in {"dispatch", "sysfs"} else 500
        began, number = time.monotonic(), number + 1
        try:
            feed(name, examples, number)
        except Exception:
            sys.stderr.write(f"a finding in {name}, with the seed {number}:\n")
            raise
        spent[name] += time.monotonic() - began
        fed[name] += examples
    for name in chosen:
        sys.stdout.write(f"{name:14} {spent[name] / 60:5.1f} min {fed[name]:8} inputs, no finding\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
