"""org.gpuhandoff.Hypervisor on a real bus: the bus itself lets nobody but root call it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuhandoff.names import BUS_NAME, HYPERVISOR_INTERFACE, MANAGER_PATH
from tests.bus.test_bus_daemon import Running, start
from tests.support.domains import domain_xml
from tests.support.stranger import Stranger

DENIED = "org.freedesktop.DBus.Error.AccessDenied"
BODY = ["win11", "prepare", "begin", "-", domain_xml()]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from start(tmp_path_factory.mktemp("daemon") / "log")


@pytest.mark.parametrize("interface", [HYPERVISOR_INTERFACE, None])
def test_others_are_refused_by_the_bus(running: Running, interface: str | None) -> None:
    with Stranger(running.bus.address) as nobody:
        for member, signature, body in (("Event", "sssss", BODY), ("EventInParts", "ssssas", [*BODY[:4], [BODY[4]]])):
            reply = nobody.call(BUS_NAME, MANAGER_PATH, interface, member, signature, body)
            assert reply.error_name == DENIED
            assert "rules" in reply.body[0]  # the bus's own words: the daemon was not reached


def test_root_is_heard(running: Running) -> None:
    with Stranger(running.bus.address, uid=0) as root:
        reply = root.call(BUS_NAME, MANAGER_PATH, HYPERVISOR_INTERFACE, "Event", "sssss", BODY)
        assert reply.error_name == "org.gpuhandoff.Error.NeedsConsent"
        assert "/etc/gpuhandoff/gpuhandoff.toml" in reply.body[0]


BAD = ["", "x", "\n", "<domain>" * 5000, "<!DOCTYPE d><domain/>", "ä" * 70_000, "x" * 2_000_000]


@pytest.mark.parametrize("place", range(5))
def test_no_input_is_an_internal_error(running: Running, place: int) -> None:
    with Stranger(running.bus.address, uid=0) as root:
        for text in BAD:
            body = [*BODY[:place], text, *BODY[place + 1 :]]
            reply = root.call(BUS_NAME, MANAGER_PATH, HYPERVISOR_INTERFACE, "Event", "sssss", body)
            assert reply.error_name != "org.gpuhandoff.Error.Failed"
            assert not reply.body or len(reply.body[0]) < 600
    assert "Traceback" not in running.log.read_text()


def test_parts_by_the_thousand(running: Running) -> None:
    with Stranger(running.bus.address, uid=0) as root:
        for parts in ([], [""] * 30_000, list(domain_xml())):
            body = [*BODY[:4], parts]
            reply = root.call(BUS_NAME, MANAGER_PATH, HYPERVISOR_INTERFACE, "EventInParts", "ssssas", body)
            assert reply.error_name in {
                "org.freedesktop.DBus.Error.InvalidArgs",
                "org.freedesktop.DBus.Error.LimitsExceeded",  # so many values in one message
                "org.gpuhandoff.Error.NeedsConsent",
            }


def test_the_policy_file_is_where_debian_looks_for_it() -> None:
    assert "dbus/org.gpuhandoff.Manager.conf" in Path("packaging/debian/install").read_text()
