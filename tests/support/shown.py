"""What a pretended daemon shows of GPUs and plans."""

from __future__ import annotations

import signal
from typing import Any

from gpuhandoff.messages import Body, Variant
from tests.support.command_daemon import GPU, JOB, Command, FakeDaemon

EVIL = "\x1b[2J\x07\u009b31m\u202eEvil"


def gpu(address: str, state: str, **more: Any) -> Variant:
    values: dict[str, Any] = {
        "address": address,
        "name": "NVIDIA GeForce RTX 4070",
        "state": state,
        "reason": "",
        "driver": "nvidia" if state == "host" else "vfio-pci",
        "functions": [address, address[:-1] + "1"],
        "iommu-group": 14,
        "vm": "",
        "owner": "",
        "job": "/",
        "step": "",
        "drives-display": False,
        "connectors": [],
    } | more
    types = {"functions": "as", "connectors": "as", "iommu-group": "i", "job": "o", "drives-display": "b"}
    return Variant("a{sv}", {key: Variant(types.get(key, "s"), value) for key, value in values.items()})


def step(name: str, does: str, costs: str = "") -> tuple[str, str, dict[str, Variant]]:
    return name, does, {"costs": Variant("s", costs), "arguments": Variant("s", "{}")}


def status(*gpus: Variant) -> Body:
    found = {one.value["address"].value: one for one in gpus}
    return ({**found, "version": Variant("s", "0.1.0"), "kernel": Variant("s", "6.12.48")},)


STEPS = [
    step("inhibit-sleep", "keep the machine from sleeping while the GPU is away", "no suspend until the GPU is back"),
    step("bind-vfio", "bind 0000:01:00.0, 0000:01:00.1 to vfio-pci"),
]


def preview(direction: str, *steps: dict[str, Variant], **more: Variant) -> Body:
    return ({"direction": Variant("s", direction), "steps": Variant("aa{sv}", list(steps)), **more},)


def previewed(name: str, does: str, costs: str = "", undo: str = "", seconds: float = -1.0) -> dict[str, Variant]:
    texts = {"step": name, "does": does, "costs": costs, "undo": undo, "arguments": "{}"}
    return {**{key: Variant("s", value) for key, value in texts.items()}, "seconds": Variant("d", seconds)}


PREVIEW = preview(
    "handoff",
    previewed("inhibit-sleep", "keep the machine awake", "no suspend until the GPU is back", "it may sleep again", 0.04),
    previewed("bind-vfio", "bind 0000:01:00.0, 0000:01:00.1 to vfio-pci", undo="vfio-pci lets go"),
    **{
        "desktop": Variant("s", "It ends: this card shows it to alice."),
        "programs": Variant("as", ["Firefox", "Konsole"]),
        "more-programs": Variant("u", 3),
        "lost": Variant("as", ["unsaved documents", "the clipboard"]),
        "ended": Variant("as", ["Ollama, the service ollama"]),
        "reset-verdict": Variant("s", "once per boot"),
        "reset-reason": Variant("s", "It may be dead."),
        "reset-source": Variant("s", "somebody"),
        "reset-risk": Variant("b", True),
        "needed": Variant("b", True),
        "asks": Variant("as", ["org.gpuhandoff.handoff-display", "org.example.other"]),
        "unneeded": Variant("as", ["holders", "accept-risk"]),
        "seconds": Variant("d", 12.4),
    },
)


async def watched(daemon: FakeDaemon, command: Command, *words: str) -> tuple[list[str], int]:
    daemon.answers = {"Status": status(gpu("0000:01:00.0", "host"))}
    process = await command.start("watch", *words)
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode()]
    daemon.emit("JobNew", JOB)
    daemon.emit("PrepareForHandoff", GPU, True)
    daemon.emit("StateChanged", GPU, "handing-off", "")
    daemon.emit("Progress", GPU, "bind-vfio", "apply", 1, 2)
    daemon.emit("DriverChanged", "0000:01:00.0", "nvidia", "")
    daemon.emit("StateChanged", GPU, "stuck", EVIL)
    daemon.emit("JobRemoved", JOB, "stuck")
    lines.extend([(await process.stdout.readline()).decode() for _ in range(7)])
    process.send_signal(signal.SIGINT)
    return lines, (await command.finish(process)).status
