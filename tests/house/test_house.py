"""Rules about the project itself."""

from __future__ import annotations

import ast
import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import gpuhandoff
from gpuhandoff.authority.table import METHODS
from gpuhandoff.service.interface import interfaces, standard_interfaces

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daemon" / "gpuhandoff"

LAYERS: dict[str, set[str]] = {
    "names": set(),
    "errors": {"names"},
    "messages": {"errors"},
    "workshop": set(),
    "patience": set(),
    "model": {"model"},
    "host": {"errors", "messages", "model", "patience", "workshop"},
    "config": {"errors", "messages", "model", "names"},
    "survey": {"host", "model"},
    "steps": {"errors", "host", "messages", "model", "patience"},
    "verdict": {"model"},
    "plan": {"config", "errors", "model", "verdict"},
    "doctor": {"model", "plan"},
    "transaction": {"errors", "host", "messages", "model", "plan", "steps"},
    "history": {"model"},
    "report": {"model"},
    "hypervisor": {"errors", "model", "names"},
    "authority": {"errors", "messages", "model", "names"},
}
"""What each room may import; `service` and `simulation` put the rooms together."""

ACTIONS = {
    "status": ("yes", "yes", "yes"),
    "inspect": ("auth_admin", "auth_admin", "yes"),
    "handoff": ("auth_admin", "auth_admin", "yes"),
    "handoff-display": ("auth_admin", "auth_admin", "auth_admin_keep"),
    "handoff-others": ("auth_admin", "auth_admin", "auth_admin"),
    "accept-risk": ("auth_admin", "auth_admin", "auth_admin"),
    "terminate-holders": ("auth_admin", "auth_admin", "auth_admin"),
    "reclaim": ("auth_admin", "auth_admin", "yes"),
    "evict-guest": ("auth_admin", "auth_admin", "auth_admin"),
    "inhibit": ("no", "yes", "yes"),
}


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def ours(path: Path) -> set[str]:
    """Return the rooms of the daemon that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("gpuhandoff.")}


@pytest.mark.parametrize("room", LAYERS)
def test_rooms_import_one_way(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py")) if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    assert files
    for path in files:
        assert ours(path) <= LAYERS[room] | {room}, path


def test_only_one_room_of_the_daemon_knows_the_bus_library() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any("dbus_next" in one for one in imports(path))
    }
    assert users
    assert {path.rpartition("/")[0] for path in users} == {"service/bus"}


def test_clients_import_only_names() -> None:
    for path in (ROOT / "clients").rglob("*.py"):
        assert {one for one in imports(path) if one.split(".")[0] == "gpuhandoff"} <= {"gpuhandoff"}
        assert "from gpuhandoff import names" in path.read_text() or "gpuhandoff" not in imports(path)


def test_no_python_where_it_would_shadow_real_modules() -> None:
    assert not [path for name in ("dbus", "systemd", "polkit") for path in (ROOT / name).rglob("*.py")]


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    debian = re.match(r"gpuhandoff \(([^)]+)\)", (ROOT / "packaging/debian/changelog").read_text())
    assert changelog is not None
    assert debian is not None
    assert {project, changelog[1], debian[1]} == {gpuhandoff.__version__}


def test_the_policy_is_that_of_the_design() -> None:
    root = ET.parse(ROOT / "polkit/org.gpuhandoff.policy").getroot()
    found = {
        action.get("id", "").removeprefix("org.gpuhandoff."): tuple(
            action.findtext(f"defaults/allow_{kind}") for kind in ("any", "inactive", "active")
        )
        for action in root.findall("action")
    }
    assert found == ACTIONS


def test_every_method_of_the_xml_has_a_row_in_the_table() -> None:
    known = {**interfaces(), **standard_interfaces()}
    assert {(name, member) for name, one in known.items() for member in one.methods} == set(METHODS)


def test_the_bus_policy_lets_everybody_reach_every_interface() -> None:
    root = ET.parse(ROOT / "dbus/org.gpuhandoff.Manager.conf").getroot()
    default = next(policy for policy in root.findall("policy") if policy.get("context") == "default")
    reachable = {rule.get("send_interface") for rule in default.findall("allow")}
    assert set(interfaces()) - {"org.gpuhandoff.Hypervisor"} <= reachable
    assert "org.gpuhandoff.Hypervisor" not in reachable  # the libvirt hook's: root's alone
    assert not [rule for rule in default.findall("allow") if rule.get("own")]


def test_what_the_security_policy_points_at_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`((?:tests|docs|systemd|packaging)/[\w./-]+)`", text))
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_development_environment_is_pinned_by_hash() -> None:
    """What pyproject.toml asks for is in the list, in that version."""
    listed = dict(re.findall(r"^([\w-]+)==(\S+) \\$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in project["optional-dependencies"]["dev"]:
        name, _, version = wanted.partition("==")
        assert listed[name] == version
    assert {re.split(r"[>=]", wanted)[0] for wanted in project["dependencies"]} <= set(listed)


def test_files_stay_small() -> None:
    large = {
        path.relative_to(ROOT).as_posix(): count
        for folder in ("daemon", "clients")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 300
    }
    assert not large
