"""Everything that reads what somebody else wrote, fed with what nobody would write: `./run fuzz MINUTES`.

A target takes one input and raises for a finding: what it reads may be refused as its callers expect, and in no other way.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gpuhandoff import names
from gpuhandoff.config import ConfigurationError, load
from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.history import line
from gpuhandoff.hypervisor.domain import Domain
from gpuhandoff.hypervisor.parse import parse_domain
from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.service.bus.reader import Reader
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import SCENARIOS
from gpuhandoff.simulation.signatures import check
from gpuhandoff.survey import survey
from gpuhandoff.survey.belonging import belonging
from gpuhandoff.transaction.record import parse
from tests.support.domains import domain_xml
from tests.support.nonsense import CARD, CGROUPS, HISTORY, JOURNAL, PIECES, TAKES, TOML, a_message, calls, mutated, spoiled
from tests.support.product import Product


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
