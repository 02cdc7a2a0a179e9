"""What the README says to do if all else fails, done: the commands themselves, on a real kernel, without the daemon."""

from __future__ import annotations

import re
from pathlib import Path

from tests.vm.bench_host import BenchHost

README = Path(__file__).parents[2] / "README.md"


def commands() -> str:
    """Return the README's commands for the single host's card, which has one function more and another driver."""
    section = README.read_text().split("## If all else fails", 1)[1]
    text = "".join(re.findall(r"```sh\n(.*?)```", section.split("\n## ", 1)[0], re.DOTALL))
    for given, here in (
        ("0000:01:00.1 0000:01:00.0", "0000:01:00.2 0000:01:00.1 0000:01:00.0"),
        ("0000:01:00.0 0000:01:00.1", "0000:01:00.0 0000:01:00.1 0000:01:00.2"),
        ("modprobe amdgpu", "modprobe bochs"),
    ):
        assert given in text
        text = text.replace(given, here)
    return text


def test_the_readme_brings_a_single_gpu_back_without_the_daemon(single: BenchHost) -> None:
    before = single.snapshot()
    single.handoff("cpus", "s", "0")
    single.run("systemctl kill --signal=KILL gpuhandoffd; systemctl stop gpuhandoffd")
    single.machine.agent.push_text(commands(), "/root/by-hand.sh")
    single.run("sh -e /root/by-hand.sh", timeout=120)
    single.wait_for_desktop()
    after = single.snapshot()
    for name in ("consoles", "fb", "dri", "units", "journals", "inhibitors"):
        assert after[name] == before[name], name
    assert {one: now["driver"] for one, now in after["pci"].items()} == {
        one: was["driver"] for one, was in before["pci"].items()
    }
    assert {now["override"] for now in after["pci"].values()} == {"(null)"}
    assert after["cpus"] == before["cpus"]
    assert set(after["effective"].values()) <= {"", "0-1"}, "somebody is still confined"
    assert single.status()["state"] == "host"
