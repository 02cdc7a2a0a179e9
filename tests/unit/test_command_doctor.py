"""What `gpuhandoff doctor` finds on machines made of files."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuhandoff_command import doctor
from gpuhandoff_command.hook_checks import HOOK, HOOKS, Check, look
from gpuhandoff_command.terminal import Terminal

PROFILE = "profile libvirtd /usr/sbin/libvirtd {\n  /etc/libvirt/hooks/** rmix,\n  /usr/bin/* PUx,\n}\n"
LATER = 2_000_000_000
"""When the machine of these tests was booted: after its files were made."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / HOOK, "#!/bin/sh\n", 0o755)
    write(tmp_path / "run/gpuhandoff/hook-patterns", "<address domain='0x0000'\n")
    write(tmp_path / "proc/stat", f"cpu 1\nbtime {LATER}\n")
    write(tmp_path / "proc/812/stat", stat_line("libvirtd"))
    write(tmp_path / "proc/1/stat", stat_line("systemd"))
    write(tmp_path / "sys/module/apparmor/parameters/enabled", "Y\n")
    write(tmp_path / "etc/apparmor.d/usr.sbin.libvirtd", PROFILE)
    return tmp_path


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def stat_line(name: str) -> str:
    return f"812 ({name}) S 1 " + " ".join(["0"] * 17) + " 500 0\n"


def found(root: Path, name: str) -> list[Check]:
    return [check for check in look(root) if check.name == name]


def test_where_all_is_well(root: Path) -> None:
    checks = look(root)
    assert [check for check in checks if check.fine is not True] == []
    assert {check.name for check in checks} == {"hook", "gpus", "started", "apparmor"}


def test_the_hook_is_not_there(root: Path) -> None:
    (root / HOOK).unlink()
    (check,) = found(root, "hook")
    assert (check.fine, "is not there" in check.message) == (False, True)


@pytest.mark.parametrize(("mode", "why"), [(0o644, "cannot run"), (0o775, "Not only root"), (0o757, "Not only root")])
def test_the_run_bit_and_who_may_write(root: Path, mode: int, why: str) -> None:
    (root / HOOK).chmod(mode)
    (check,) = found(root, "hook")
    assert (check.fine, why in check.message) == (False, True)


def test_the_daemon_has_told_of_no_gpu(root: Path) -> None:
    (root / "run/gpuhandoff/hook-patterns").write_text("")
    assert found(root, "gpus")[0].fine is False
    (root / "run/gpuhandoff/hook-patterns").unlink()
    assert found(root, "gpus")[0].fine is False


def test_libvirt_is_older_than_the_hook(root: Path) -> None:
    write(root / "proc/stat", "btime 1000\n")
    (check,) = found(root, "started")
    assert check.fine is None
    assert "libvirtd (pid 812)" in check.message
    assert "systemctl reload libvirtd" in check.message
    write(root / "proc/812/stat", "nonsense")
    assert found(root, "started") == []


@pytest.mark.parametrize(
    ("profile", "why"),
    [("/usr/bin/* PUx,\n", "does not let it run hooks"), ("/etc/libvirt/hooks/** rmix,\n", "lets hooks run no programs")],
)
def test_apparmor(root: Path, profile: str, why: str) -> None:
    write(root / "etc/apparmor.d/usr.sbin.libvirtd", profile)
    (check,) = found(root, "apparmor")
    assert (check.fine, why in check.message) == (False, True)
    write(root / "sys/module/apparmor/parameters/enabled", "N\n")
    assert found(root, "apparmor") == []


@pytest.mark.parametrize(
    ("place", "text", "fine"),
    [
        ("qemu", "#!/bin/bash\nvirsh nodedev-detach pci_0000_01_00_0\n", False),
        ("qemu.d/10-other", "echo vfio-pci > /sys/bus/pci/devices/x/driver_override\n", False),
        ("qemu.d/win11/prepare/begin/start.sh", "modprobe vfio-pci\n", False),
        ("qemu.d/20-network", "iptables -A FORWARD\n", True),
        ("qemu.d/30-note", "# no longer: modprobe vfio-pci\nexit 0\n", True),
    ],
)
def test_another_hook(root: Path, place: str, text: str, fine: bool) -> None:
    write(root / HOOKS / place, text, 0o755)
    (check,) = found(root, "others")
    assert check.fine is fine
    assert check.message.startswith(f"/{HOOKS}/{place} ")


@pytest.mark.parametrize("place", ["qemu", "qemu.d/10-other", "qemu.d/win11/prepare/begin/start.sh"])
def test_another_hook_that_libvirt_does_not_run(root: Path, place: str) -> None:
    write(root / HOOKS / place, "modprobe vfio-pci\n", 0o644)
    assert found(root, "others") == []
    (root / HOOKS / place).chmod(0o654)
    assert found(root, "others")[0].fine is False


@pytest.mark.parametrize("shut", ["etc/libvirt", f"{HOOKS}/qemu.d/win11"])
def test_other_hooks_that_only_root_may_see(root: Path, shut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / HOOKS / "qemu.d/win11/start.sh", "modprobe vfio-pci\n", 0o755)

    def refusing(look: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: str | Path, *more: Any, **named: Any) -> Any:
            if f"{path}/".startswith(f"{root / shut}/"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return look(path, *more, **named)

        return refuse

    with monkeypatch.context() as patched:
        for name in ("stat", "scandir"):
            patched.setattr(os, name, refusing(getattr(os, name)))
        checks = look(root)
    unseen = [check.message for check in checks if check.name == "others"]
    assert unseen == [f"Other hooks in /{HOOKS} cannot be looked at: Permission denied. Try it as root."]


def test_a_machine_without_anything(tmp_path: Path) -> None:
    assert [(check.name, check.fine) for check in look(tmp_path)] == [("hook", False), ("gpus", False)]


FINDINGS = [
    {"severity": "fine", "check": "iommu", "gpu": "", "what": "The IOMMU is on.", "evidence": "DMAR", "remedy": ""},
    {"severity": "problem", "check": "group", "gpu": "0000:01:00.0", "what": "It is not alone.", "evidence": "Group 14",
     "remedy": "Move it, with the option stop-display."},
    {"severity": "warning", "check": "reset", "gpu": "", "what": "Hm.", "evidence": "", "remedy": ""},
]  # fmt: skip


def shown(findings: list[dict[str, str]], *, as_json: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    return int(doctor.show_findings(Terminal(as_json=as_json, out=out), findings)), out.getvalue()


def test_the_worst_is_told_first_with_its_evidence_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    status, out = shown(FINDINGS)
    assert status == 1
    assert out == (
        "!!  0000:01:00.0  It is not alone.\n"
        "    Group 14\n"
        "    → Move it, with the option --stop-display.\n"
        "!   Hm.\n"
        "ok  The IOMMU is on.\n"
        "\n"
        "1 problem and 1 warning.\n"
    )


@pytest.mark.parametrize(
    ("severities", "status", "summary"),
    [
        ((), 0, "Nothing stands in the way."),
        (("fine", "note"), 0, "Nothing stands in the way."),
        (("warning", "note", "warning"), 8, "2 warnings."),
        (("problem", "problem"), 1, "2 problems."),
    ],
)
def test_the_status_is_that_of_the_worst(severities: tuple[str, ...], status: int, summary: str) -> None:
    found, out = shown([{**FINDINGS[0], "severity": one} for one in severities])
    assert found == status
    assert out.endswith(f"\n{summary}\n")


def test_as_json() -> None:
    status, out = shown(FINDINGS, as_json=True)
    document = json.loads(out)
    assert (status, document["problems"], document["warnings"]) == (1, 1, 1)
    assert [one["check"] for one in document["findings"]] == ["group", "reset", "iommu"]


async def test_without_a_daemon_the_hook_is_looked_at_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "look", lambda: look(root))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={root}/absent")
    (root / HOOK).chmod(0o644)
    assert await doctor.diagnose(Terminal(as_json=False), ask=False) == 1
    out = capsys.readouterr().out
    assert "!!  gpuhandoffd could not be asked.\n" in out
    assert f"!!  libvirt cannot run /{HOOK}: sudo chmod 755 /{HOOK}\n" in out
    assert out.endswith("2 problems.\n")


def test_what_may_not_be_read_is_said_to_be_unseen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, os.strerror(13), str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        assert found(root, "gpus")[0].fine is None
