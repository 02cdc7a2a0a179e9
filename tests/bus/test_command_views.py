"""`gpuhandoff status`, `plan`, `holders`, `watch`: what a person sees, and what a script reads."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gpuhandoff.errors import AccessDeniedError, InvalidArgsError, NeedsConsentError
from gpuhandoff.messages import Body, Call, Variant
from tests.support.command_daemon import GPU, JOB, Command, FakeDaemon, fake_daemon

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


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with fake_daemon() as running:
        yield running


@pytest.fixture
def command(daemon: FakeDaemon) -> Command:
    return Command(daemon.address)


async def test_status_of_a_gpu_at_home(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status(gpu("0000:01:00.0", "host", connectors=["HDMI-A-1"])), "Plan": (STEPS,)}
    ended = await command("status")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == (
        "0000:01:00.0  NVIDIA GeForce RTX 4070\n"
        "  state      with the host\n"
        "  driver     nvidia\n"
        "  functions  00.0, 00.1 (IOMMU group 14)\n"
        "  screens    HDMI-A-1\n"
        "  to lend    nothing stands in the way, nothing ends\n"
    )
    assert not daemon.last("Plan").interactive


async def test_status_says_what_lending_would_take(daemon: FakeDaemon, command: Command) -> None:
    subject = "0000:01:00.0 (NVIDIA GeForce RTX 4070)"
    daemon.answers = {
        "Status": status(gpu("0000:01:00.0", "host")),
        "Plan": NeedsConsentError(f"{subject} shows the desktop. Allow it with the option stop-display."),
    }
    ended = await command("status")
    assert ended.status == 0
    assert "  to lend    shows the desktop. Allow it with the option --stop-display.\n" in ended.out


async def test_status_of_gpus_elsewhere(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {
        "Status": status(
            gpu("0000:01:00.0", "detached", vm="win11"),
            gpu("0000:02:00.0", "guest", owner="qemu-system-x86 (pid 4242)"),
            gpu("0000:03:00.0", "handing-off", driver="", step="unload-driver", job=JOB),
            gpu("0001:00:00.0", "stuck", reason="unload-driver: EBUSY. Reboot.", **{"iommu-group": -1}),
        )
    }
    ended = await command("status")
    assert ended.out == (
        "0000:01:00.0  NVIDIA GeForce RTX 4070\n"
        "  state      lent, ready for a guest\n"
        "  driver     vfio-pci\n"
        "  lent to    win11\n"
        "  functions  00.0, 00.1 (IOMMU group 14)\n"
        "  next       start the virtual machine, or `gpuhandoff reclaim 01:00.0`\n"
        "\n"
        "0000:02:00.0  NVIDIA GeForce RTX 4070\n"
        "  state      with a guest: qemu-system-x86 (pid 4242)\n"
        "  driver     vfio-pci\n"
        "  functions  00.0, 00.1 (IOMMU group 14)\n"
        "  next       shut the virtual machine down, then `gpuhandoff reclaim 02:00.0`\n"
        "\n"
        "0000:03:00.0  NVIDIA GeForce RTX 4070\n"
        "  state      on its way to the guest\n"
        "  step       unload the driver\n"
        "  driver     none\n"
        "  functions  00.0, 00.1 (IOMMU group 14)\n"
        "  next       `gpuhandoff cancel 03:00.0` stops and undoes it\n"
        "\n"
        "0001:00:00.0  NVIDIA GeForce RTX 4070\n"
        "  state      STUCK\n"
        "  why        unload-driver: EBUSY. Reboot.\n"
        "  driver     vfio-pci\n"
        "  functions  00.0, 00.1 (no IOMMU group)\n"
    )


async def test_status_without_any_gpu(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status()}
    assert (await command("status")).out == "This machine has no GPU.\n"


async def test_status_as_json(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status(gpu("0000:01:00.0", "host")), "Plan": (STEPS,)}
    for words in (("status", "--json"), ("--json", "status")):
        (document,) = (await command(*words)).documents
        assert (document["version"], document["kernel"]) == ("0.1.0", "6.12.48")
        (one,) = document["gpus"]
        assert (one["address"], one["state"], one["functions"]) == ("0000:01:00.0", "host", ["0000:01:00.0", "0000:01:00.1"])
        assert one["handoff"] == {
            "possible": True, "error": "", "message": "", "costs": ["no suspend until the GPU is back"],
        }  # fmt: skip


@pytest.mark.parametrize("words", [("status",), ("status", "--json")])
async def test_other_peoples_escape_sequences_are_never_printed(
    daemon: FakeDaemon, command: Command, words: tuple[str, ...]
) -> None:
    daemon.answers = {
        "Status": status(gpu("0000:01:00.0", "guest", name=EVIL, reason=EVIL, owner=EVIL, vm=EVIL, driver=EVIL, step=EVIL))
    }
    ended = await command(*words)
    assert ended.status == 0
    assert ended.out.replace("\n", "").isprintable()


async def test_plain_ascii_where_the_locale_is_not_utf8(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status(gpu("0000:01:00.0", "guest", name="Karte für Gäste…"))}
    ended = await command("status", LANG="C")
    assert ended.out.startswith("0000:01:00.0  Karte f?r G?ste...\n")
    assert ended.out.isascii()


async def test_a_plan(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Preview": PREVIEW}
    words = ("--vm", "win11", "--stop-display", "--terminate-holders", "--cpus", "0-1", "--memory", "16G", "--timeout", "60")
    more = ("--guest-timeout", "90")
    ended = await command("plan", "01:00.0", *words, *more, "--hugepages", "static", "--quiet-host", "--accept-risk")
    assert ended.status == 0
    assert ended.out == (
        "desktop     It ends: this card shows it to alice.\n"
        "ends        Firefox, Konsole and 3 more\n"
        "            Ollama, the service ollama\n"
        "lost        unsaved documents\n"
        "            the clipboard\n"
        "returns     once per boot. It may be dead. (somebody) The next guest takes the option --accept-risk.\n"
        "asks for    ending sessions (org.gpuhandoff.handoff-display), org.example.other\n"
        "            --terminate-holders and --accept-risk are not needed here, but asked for as well when given\n"
        "takes       usually 12 s here\n"
        "\n"
        " 1  keep the machine awake  (inhibit-sleep)\n"
        " 2  bind 0000:01:00.0, 0000:01:00.1 to vfio-pci  (bind-vfio)\n"
        "\n"
        "What it costs you while the GPU is away:\n"
        "  - no suspend until the GPU is back\n"
        "Nothing was changed. Every step is undone by `gpuhandoff reclaim`, and by a reboot.\n"
    )
    assert daemon.last("Preview").body == (
        "01:00.0",
        "handoff",
        {
            "vm": Variant("s", "win11"),
            "stop-display": Variant("b", True),
            "holders": Variant("s", "terminate"),
            "cpus": Variant("s", "0-1"),
            "memory": Variant("t", 16 << 30),
            "timeout": Variant("u", 60),
            "guest-timeout": Variant("u", 90),
            "hugepages": Variant("s", "static"),
            "quiet": Variant("b", True),
            "accept-risk": Variant("b", True),
        },
    )


async def test_a_plan_as_json(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Preview": PREVIEW}
    (document,) = (await command("plan", "--json")).documents
    assert document["direction"] == "handoff"
    assert document["programs"] == ["Firefox", "Konsole"]
    assert [one["step"] for one in document["steps"]] == ["inhibit-sleep", "bind-vfio"]
    assert document["steps"][0]["costs"] == "no suspend until the GPU is back"


async def test_a_plan_with_how_each_step_is_undone(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Preview": PREVIEW}
    out = (await command("plan", "-v")).out
    assert " 1  keep the machine awake  (inhibit-sleep)\n    back: it may sleep again; usually 0.0 s\n" in out
    assert "\n    back: vfio-pci lets go; it was never done here\n" in out


async def test_a_plan_of_the_way_back(daemon: FakeDaemon, command: Command) -> None:
    steps = (previewed("bind-vfio", "undo it"), previewed("inhibit-sleep", "undo it"))
    daemon.answers = {"Preview": preview("reclaim", *steps)}
    ended = await command("plan", "--reclaim")
    assert daemon.last("Preview").body == ("", "reclaim", {})
    assert ended.out == (
        " 1  unbind vfio-pci  (bind-vfio)\n"
        " 2  let the machine sleep again  (inhibit-sleep)\n"
        "\n"
        "This only plans; `gpuhandoff reclaim` does it.\n"
    )


async def test_holders(daemon: FakeDaemon, command: Command) -> None:
    holder = {
        "pid": Variant("u", 4242),
        "start-time": Variant("t", 7),
        "name": Variant("s", "ollama"),
        "uid": Variant("u", 1000),
        "unit": Variant("s", "ollama.service"),
        "session": Variant("s", "2"),
        "nodes": Variant("as", ["/dev/nvidia0", "/dev/nvidiactl"]),
        "ways": Variant("as", ["open", "mapped"]),
        "who": Variant("s", "Ollama, the service ollama"),
        "leaves": Variant("b", False),
    }
    daemon.answers = {"Holders": ([holder],)}
    ended = await command("holders", "01:00.0")
    assert ended.out == (
        "Ollama, the service ollama\n  ollama (pid 4242, uid 1000), ollama.service, mapped\n  /dev/nvidia0 /dev/nvidiactl\n"
    )
    daemon.answers = {"Holders": ([{**holder, "leaves": Variant("b", True)}],)}
    assert (await command("holders")).out.startswith("Ollama, the service ollama, lets go by itself\n")
    assert (await command("holders", "--json")).documents[0]["holders"][0]["pid"] == 4242
    daemon.answers = {"Holders": ([],)}
    assert (await command("holders")).out == "Nobody has it open.\n"


async def test_a_doctor_who_may_not_ask_says_so(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Diagnose": AccessDeniedError("You are not allowed to do this.")}
    ended = await command("doctor")
    assert "-   What gpuhandoffd knows of this machine is not for you.\n    Access denied: You are not allowed" in ended.out


async def test_a_doctor_shows_what_the_daemon_finds(daemon: FakeDaemon, command: Command) -> None:
    finding = {"severity": "warning", "check": "reset", "gpu": "", "what": EVIL, "evidence": EVIL, "remedy": EVIL}
    daemon.answers = {"Diagnose": ([{key: Variant("s", value) for key, value in finding.items()}],)}
    ended = await command("doctor")
    assert ended.out.replace("\n", "").isprintable()
    assert "1 warning." in ended.out


async def test_a_wrong_address_is_wrong_usage(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Preview": InvalidArgsError("gpu: 'x' is not a PCI address such as 0000:01:00.0.")}
    ended = await command("plan", "x")
    assert (ended.status, ended.err) == (2, "gpuhandoff: gpu: 'x' is not a PCI address such as 0000:01:00.0.\n")


async def test_a_daemon_that_says_nothing(daemon: FakeDaemon, command: Command) -> None:
    async def sleep(call: Call) -> Body:
        await asyncio.sleep(30)
        return ()

    daemon.answers = {"Status": sleep}
    patch = "import gpuhandoff_command.connection as c; c.Connection.manager.__kwdefaults__['timeout'] = 0.2"
    ended = await command("status", prelude=patch)
    assert ended.status == 6
    assert ended.err == (
        "gpuhandoff: gpuhandoffd did not answer Status within 0.2 s. "
        "It may still be at work: `gpuhandoff status` shows it.\n"
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


async def test_watch(daemon: FakeDaemon, command: Command) -> None:
    lines, ended = await watched(daemon, command)
    assert ended == 0
    assert [line.partition(" ")[2] for line in lines] == [
        "0000:01:00.0 with the host\n",
        "job 1 begins\n",
        "0000:01:00.0 is about to be lent\n",
        "0000:01:00.0 on its way to the guest\n",
        "0000:01:00.0 1/2 bind-vfio apply\n",
        "0000:01:00.0 driver nvidia → none\n",
        "0000:01:00.0 STUCK: ?[2J??31m?Evil\n",
        "job 1 ends: stuck\n",
    ]


async def test_watch_as_json(daemon: FakeDaemon, command: Command) -> None:
    lines, ended = await watched(daemon, command, "--json")
    events = [json.loads(line) for line in lines]
    assert ended == 0
    assert [event["event"] for event in events] == [
        "StateChanged",
        "JobNew",
        "PrepareForHandoff",
        "StateChanged",
        "Progress",
        "DriverChanged",
        "StateChanged",
        "JobRemoved",
    ]
    assert (
        events[4].items() >= {"gpu": "0000:01:00.0", "step": "bind-vfio", "phase": "apply", "index": 1, "count": 2}.items()
    )
    assert events[2]["start"] is True
    assert all(event["time"] > 1e9 for event in events)


async def test_watch_ends_when_nobody_reads(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status()}
    process = await command.start("watch")
    await daemon.until("Status")
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    process.stdout = None
    for _ in range(3):
        daemon.emit("JobNew", JOB)
        await asyncio.sleep(0.05)
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_watch_goes_on_when_the_daemon_goes(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Status": status()}
    process = await command.start("watch")
    assert process.stdout is not None
    await daemon.until("Status")
    await asyncio.sleep(0.1)
    await daemon.bus.close()
    assert (await process.stdout.readline()).endswith(b" gpuhandoffd is gone\n")
    again = await FakeDaemon.start(daemon.address)
    assert (await process.stdout.readline()).endswith(b" gpuhandoffd has started\n")
    again.emit("JobNew", JOB)
    assert (await process.stdout.readline()).endswith(b" job 1 begins\n")
    process.send_signal(signal.SIGTERM)
    assert (await command.finish(process)).status == 0
    await again.close()
