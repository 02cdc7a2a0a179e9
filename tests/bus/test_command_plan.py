"""`gpuhandoff plan`, as a person and as a program read it."""

from __future__ import annotations

from gpuhandoff.messages import Variant
from tests.support.command_daemon import Command, FakeDaemon
from tests.support.shown import PREVIEW, preview, previewed


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
    assert "\n    back: vfio-pci lets go; not known, it was never done here\n" in out


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
