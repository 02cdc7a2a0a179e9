"""Machines as trees of sysfs, put together from public sources that each file names; replayed with the whole daemon.

A file has `# source: ...` lines, what is made up (`# desktop: USER UID COMPOSITOR GPU`,
`# holder: NAME UID GPU NODES [CGROUP]`), and then the tree: `PATH: TEXT`, with \\n and \\t for line ends and tabs, and
`PATH -> TARGET`.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuhandoff.messages import RemoteError, Variant
from gpuhandoff.report.plain import plain
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.replay import replay
from gpuhandoff.survey import survey
from gpuhandoff_command.doctor import show_findings
from gpuhandoff_command.exits import CallError
from gpuhandoff_command.plan_view import show_plan
from gpuhandoff_command.sentences import sentence
from gpuhandoff_command.terminal import Terminal
from gpuhandoff_command.views import show_status
from tests.support.product import Product

MACHINES = Path(__file__).parents[1] / "fixtures" / "machines"
EVERYTHING = ("/etc/os-release", "/usr/share/misc/pci.ids")
"""Files that the replay needs besides what the survey says."""
ALLOWED = {"stop-display": Variant("b", True), "holders": Variant("s", "terminate"), "accept-risk": Variant("b", True)}


@dataclass(frozen=True, slots=True)
class Fixture:
    """One file, read."""

    name: str
    title: str
    sources: tuple[str, ...]
    desktops: tuple[tuple[str, ...], ...]
    holders: tuple[tuple[str, ...], ...]
    texts: dict[str, str]
    links: dict[str, str]


def names() -> list[str]:
    """Return every fixture."""
    return sorted(path.stem for path in MACHINES.glob("*.sysfs"))


def read(name: str) -> Fixture:
    """Read a fixture."""
    lines = (MACHINES / f"{name}.sysfs").read_text().splitlines()
    head = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    body = [line for line in lines if not line.startswith("#")]

    def said(key: str) -> list[str]:
        return [line.removeprefix(f"{key}: ") for line in head if line.startswith(f"{key}: ")]

    links = dict(line.split(" -> ", 1) for line in body if " -> " in line and ": " not in line.split(" -> ", 1)[0])
    texts = dict(line.split(": ", 1) for line in body if line.split(" -> ", 1)[0] not in links)
    return Fixture(
        name,
        head[0],
        tuple(said("source")),
        tuple(tuple(line.split()) for line in said("desktop")),
        tuple(tuple(line.split()) for line in said("holder")),
        {path: text.replace("\\n", "\n").replace("\\t", "\t") + "\n" for path, text in texts.items()},
        links,
    )


def plant(fixture: Fixture) -> SimulatedMachine:
    """Return a machine that is nothing but the files."""
    machine = SimulatedMachine((), iommu_table="")
    for path, target in fixture.links.items():
        machine.tree.link(path, target)
    for path, text in fixture.texts.items():
        machine.tree.text(path, text)
    return machine


async def document(fixture: Fixture) -> dict[str, Any]:
    """Return what a report would say of the machine, with its desktop and holders."""
    machine = plant(fixture)
    broker = LoopbackBroker()
    await machine.serve(broker)
    world: dict[str, Any] = plain(await survey(simulated_host(machine, broker.connect())))
    gpus = {gpu["address"]: gpu for gpu in world["gpus"]}
    for number, (user, uid, compositor, address) in enumerate(fixture.desktops, 2):
        cgroup = f"/user.slice/user-{uid}.slice/user@{uid}.service/session.slice/{compositor}.service"
        world["sessions"].append(
            {"id": str(number), "uid": int(uid), "user": user, "seat": "seat0", "kind": "user", "type": "wayland",
             "state": "active", "scope": f"session-{number}.scope", "leader": 900 + number}
        )  # fmt: skip
        gpus[address]["holders"].append(_holder(compositor, int(uid), gpus[address]["cards"], cgroup))
    for name, uid, address, kind, *cgroups in fixture.holders:
        nodes = {
            "card": [one for one in gpus[address]["cards"] if "/card" in one],
            "render": [one for one in gpus[address]["cards"] if "/render" in one],
            "nvidia": ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"],
        }[kind]
        cgroup = cgroups[0] if cgroups else f"/user.slice/user-{uid}.slice/user@{uid}.service/session.slice/{name}.service"
        gpus[address]["holders"].append(_holder(name, int(uid), nodes, cgroup))
    return {"machine": world}


async def machine_of(fixture: Fixture) -> SimulatedMachine:
    """Return the machine, alive."""
    machine = await replay(json.loads(json.dumps(await document(fixture))))
    for path in EVERYTHING:
        machine.tree.text(path, fixture.texts[path])
    return machine


async def texts(fixture: Fixture, directory: Path) -> dict[str, str]:
    """Return what status, doctor and plan of every GPU print, as on a terminal without colours."""
    product = await Product(await machine_of(fixture), directory).start()
    status = plain_reply(await product.call("Status"))
    status["version"] = "VERSION"
    addresses = sorted(key for key in status if key.count(":") == 2)
    outlooks = {address: await _reply(product, "Plan", address, {}) for address in addresses}
    found = {"status": _printed(lambda terminal: show_status(terminal, status, outlooks))}
    for address in addresses:
        told = await _reply(product, "Preview", address, ALLOWED)
        found[f"plan {address}"] = (
            f"{sentence(told, 'plan')}\n"
            if isinstance(told, CallError)
            else _printed(lambda terminal, told=told: show_plan(terminal, told))
        )
    findings = plain_reply(await product.call("Diagnose"))
    found["doctor"] = _printed(lambda terminal: show_findings(terminal, findings))
    await product.stop()
    return found


def plain_reply(value: Any) -> Any:
    """Return a reply without the types of the bus."""
    match value:
        case Variant():
            return plain_reply(value.value)
        case dict():
            return {key: plain_reply(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain_reply(inner) for inner in value]
    return value


async def _reply(product: Product, member: str, address: str, options: dict[str, Variant]) -> Any:
    try:
        return plain_reply(await product.call(member, "ssa{sv}", address, "handoff", options))
    except RemoteError as error:
        return CallError(error.name, error.message)


def _printed(show: Any) -> str:
    out = io.StringIO()
    show(Terminal(as_json=False, out=out, errors=out))
    return out.getvalue()


def _holder(name: str, uid: int, nodes: list[str], cgroup: str) -> dict[str, Any]:
    process = {"pid": 0, "start_time": 0, "name": name, "uid": uid, "cgroup": cgroup}
    return {"process": process, "nodes": nodes, "unit": "", "session": "", "seat_service": False}
