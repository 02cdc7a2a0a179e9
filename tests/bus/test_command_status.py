"""`gpuhandoff status`, as a person and as a program read it."""

from __future__ import annotations

import pytest

from gpuhandoff.errors import NeedsConsentError
from tests.support.command_daemon import JOB, Command, FakeDaemon
from tests.support.shown import EVIL, STEPS, gpu, status


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
        "  next       shut the virtual machine down: then the GPU comes back by itself\n"
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


async def test_status_of_gpus_that_somebody_else_has_moved(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {
        "Status": status(
            gpu("0000:01:00.0", "foreign", driver="nvidia", reason="Reclaim puts it in order."),
            gpu("0000:02:00.0", "foreign", driver="", reason="no driver is bound"),
        )
    }
    told = (await command("status")).out
    assert "  state      moved by somebody else\n  why        Reclaim puts it in order.\n  driver     nvidia\n" in told
    assert "  state      without a driver\n  why        no driver is bound\n  driver     none\n" in told


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
