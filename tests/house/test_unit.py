"""The systemd unit: right, tight, and open exactly where the steps write."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from gpuhandoff import names

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/gpuhandoffd.service"
READ_ONLY = {"/proc/meminfo"}
"""What steps only read, outside the paths that the unit opens."""
LISTENER = """
import asyncio
from gpuhandoff.host.netlink import MachineUevents

async def listen():
    heard = asyncio.get_running_loop().create_future()
    MachineUevents().subscribe(lambda event: event.path.endswith("/mem/null") and heard.set_result(event.action))
    print("ready", flush=True)
    print(await asyncio.wait_for(heard, 30))

asyncio.run(listen())
"""


def directives(section: str = "Service") -> dict[str, str]:
    """Return a section's directives; of one that is given twice, the last."""
    parser = ConfigParser(strict=False, interpolation=None, comment_prefixes="#", delimiters="=")
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # the documented way to keep upper case
    parser.read(UNIT)
    return dict(parser[section])


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_it_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_tight() -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) <= 3.0


def test_it_has_the_names_that_the_daemon_has() -> None:
    service = directives()
    assert service["BusName"] == names.BUS_NAME
    assert f"/run/{service['RuntimeDirectory']}" == names.RUNTIME_DIRECTORY
    assert f"/var/lib/{service['StateDirectory']}" == names.STATE_DIRECTORY
    assert f"/etc/{service['ConfigurationDirectory']}/" in names.CONFIGURATION_FILE


def system_calls(group: str) -> set[str]:
    """Return what a group of the filter lets through."""
    lines = analyze("syscall-filter", "--no-pager", group).stdout.splitlines()[1:]
    names = {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")}
    return {name for one in names for name in (system_calls(one) if one.startswith("@") else {one})}


def test_each_capability_is_one_that_the_unit_tells_the_use_of() -> None:
    text = UNIT.read_text()
    capabilities = {name.removeprefix("CAP_") for name in directives()["CapabilityBoundingSet"].split()}
    assert capabilities == {"SYS_MODULE", "KILL", "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_ADMIN"}
    comment = text[text.index("# SYS_MODULE") : text.index("CapabilityBoundingSet=CAP")]
    assert {name for name in capabilities if name not in comment} == set()


def test_what_else_the_administrators_capability_is_for_is_shut() -> None:
    assert directives()["RestrictNamespaces"] == directives()["NoNewPrivileges"] == "yes"
    assert directives()["DevicePolicy"] == "closed"
    filters = re.findall(r"^SystemCallFilter=(?!~)(.*)", UNIT.read_text(), flags=re.MULTILINE)
    let_through = {name for one in filters for group in one.split() for name in system_calls(group)}
    assert "write" in let_through
    shut = {"mount", "umount2", "move_mount", "pivot_root", "chroot", "bpf", "perf_event_open", "swapon"}
    assert let_through.isdisjoint(shut)


def test_the_bus_starts_the_same_unit() -> None:
    activation = (ROOT / "dbus/org.gpuhandoff.Manager.service").read_text()
    assert f"Name={names.BUS_NAME}\n" in activation
    assert f"SystemdService={UNIT.name}\n" in activation
    assert "Exec=/bin/false\n" in activation  # where systemd is not there to confine it, nobody starts it


def test_a_gpu_that_is_away_outlives_the_daemon() -> None:
    assert directives()["RuntimeDirectoryPreserve"] == "yes"
    assert directives("Unit")["IgnoreOnIsolate"] == "yes"


def test_children_inside_the_kernel_are_never_killed() -> None:
    assert directives()["KillMode"] == "process"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a network of its own")
def test_device_events_are_heard_without_a_network() -> None:
    assert directives()["PrivateNetwork"] == "yes"
    program = ["unshare", "--net", sys.executable, "-c", LISTENER]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        Path("/sys/class/mem/null/uevent").write_text("change")  # harmless: it changes nothing
        assert listener.stdout.readline() == "change\n"


@pytest.mark.parametrize("step", sorted((ROOT / "daemon/gpuhandoff/steps").glob("*.py")), ids=lambda path: str(path.stem))
def test_steps_write_where_the_unit_lets_them(step: Path) -> None:
    assert "ProtectControlGroups" not in directives()
    # Links of /sys/class lead to /sys/devices.
    open_paths = (*directives()["ReadWritePaths"].split(), "/sys/class", "/proc/irq")
    assert "ProtectKernelTunables" not in directives(), "/proc/irq would be read-only"
    mentioned = {
        node.value
        for node in ast.walk(ast.parse(step.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"/(sys|proc)/", node.value)
    }
    assert not [path for path in mentioned - READ_ONLY if not path.startswith(open_paths)]
