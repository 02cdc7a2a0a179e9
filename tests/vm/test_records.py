"""What the daemon can tell of itself from inside its sandbox: history and the support report."""

from __future__ import annotations

import json

from tests.vm.bench_host import BenchHost


def test_the_report_is_complete_and_names_nobody(dual: BenchHost) -> None:
    dual.handoff("vm", "s", "tax-2026")
    dual.run("echo '<6>test: vfio opened by /home/player/tax-2026.sh on testhost' >/dev/kmsg")
    text = dual.run("gpuhandoff report --json").output
    report = json.loads(text)
    assert report["notes"] == [], "something could not be read"
    assert report["versions"]["kernel"] == dual.run("uname -r").output.strip()
    assert all(report["versions"][one] for one in ("gpuhandoff", "systemd", "python", "dbus-next", "distribution"))
    assert report["gpus"][dual.layout.gpu]["state"] == "detached"
    assert any("VFIO" in line for line in report["kernel-log"])
    assert any("vfio opened by /home/" in line for line in report["kernel-log"])
    assert any("bind-vfio" in line for line in report["log"])
    assert report["journals"][f"{dual.layout.gpu}.journal"][0]["vm"] == "vm1"
    for name in ("player", "tax-2026", "testhost"):
        assert name not in text
    dual.reclaim()


def test_history_tells_of_moves_and_refusals(dual: BenchHost) -> None:
    dual.handoff()
    assert dual.handoff(check=False).status == 1
    dual.reclaim()
    moves = json.loads(dual.run("gpuhandoff history --json").output)["moves"]
    assert [(one["operation"], one["outcome"]) for one in moves] == [
        ("reclaim", "done"),
        ("handoff", "refused"),
        ("handoff", "done"),
    ]
    assert dual.run("stat -c %a:%U /var/lib/gpuhandoff").output.strip() in {"700:root", "750:root"}
