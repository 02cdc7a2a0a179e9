"""Whether libvirt will run our hook, and whether another one is in its way: what the files of this machine tell."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpuhandoff import names

HOOKS = "etc/libvirt/hooks"
HOOK = f"{HOOKS}/qemu.d/50-gpuhandoff"
DAEMONS = ("virtqemud", "libvirtd")
LARGEST = 1 << 16
"""Bytes that are read of somebody else's hook."""
MOST = 200
"""Files of other hooks that are looked at."""

_MOVES = re.compile(
    rb"driver_override|drivers?/[^\s]*/(?:un)?bind|nodedev-(?:detach|reattach)|vfio[-_]pci|driverctl|modprobe"
)
_RUNS_HOOKS = re.compile(r"^\s*/etc/libvirt/hooks/\S*\s+\w*x\w*,", re.MULTILINE)
_RUNS_PROGRAMS = re.compile(r"^\s*(?:/usr/bin/\*|/usr/\{?s?bin\S*|/\{usr/,\}bin/\*|/\*\*)\s+\w*x\w*,", re.MULTILINE)


class Check(NamedTuple):
    """One thing that was looked at. `fine` is None where it could not be seen."""

    name: str
    fine: bool | None
    message: str


def look(root: Path = Path("/")) -> list[Check]:
    """Look at everything below `root`. Changes nothing; what only root may see is said to be unseen."""
    return [_hook(root), _known_gpus(root), *_started(root), *_apparmor(root), *_selinux(root), *_others(root)]


def _hook(root: Path) -> Check:
    path = root / HOOK
    try:
        found = path.stat()
    except FileNotFoundError:
        return Check("hook", False, f"/{HOOK} is not there: install the package, or copy it there from clients/libvirt.")
    except OSError as error:
        return Check("hook", None, f"/{HOOK} cannot be looked at: {error.strerror}. Try it as root.")
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IXUSR:
        return Check("hook", False, f"libvirt cannot run /{HOOK}: sudo chmod 755 /{HOOK}")
    if found.st_uid != path.parents[2].stat().st_uid or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Check("hook", False, f"Not only root may write /{HOOK}, which libvirt runs as root: sudo chmod 755 /{HOOK}")
    return Check("hook", True, f"/{HOOK} is there and can be run.")


def _known_gpus(root: Path) -> Check:
    path = root / names.HOOK_PATTERNS.lstrip("/")
    try:
        count = len(path.read_text().splitlines())
    except PermissionError:
        return Check("gpus", None, f"Only root may see {names.HOOK_PATTERNS}.")
    except OSError:
        count = 0
    if not count:
        return Check(
            "gpus", False, f"{names.HOOK_PATTERNS} names no GPU, so the hook does nothing: start gpuhandoffd.service."
        )
    return Check("gpus", True, "gpuhandoffd has told the hook which GPUs there are.")


def _started(root: Path) -> Iterator[Check]:
    """Whether libvirt has looked since: it does so when it starts or is reloaded."""
    try:
        changed = max((root / HOOKS).stat().st_ctime, (root / HOOK).parent.stat().st_ctime)
    except OSError:
        return
    boot = _boot_time(root)
    for pid in _entries(root / "proc"):
        name, started = _process(root, pid)
        if name in DAEMONS and boot and boot + started < changed:
            yield Check(
                "started",
                None,
                f"{name} (pid {pid}) was started before /{HOOKS} was last changed; unless it has been reloaded since, it "
                f"may not know of the hook: sudo systemctl reload {name}",
            )
        elif name in DAEMONS and boot:
            yield Check("started", True, f"{name} (pid {pid}) was started after the hook was installed.")


def _apparmor(root: Path) -> Iterator[Check]:
    try:
        if (root / "sys/module/apparmor/parameters/enabled").read_text().strip() != "Y":
            return
    except OSError:
        return
    for name in DAEMONS:
        path = root / f"etc/apparmor.d/usr.sbin.{name}"
        try:
            profile = path.read_text(errors="replace")
        except OSError:
            continue
        if not _RUNS_HOOKS.search(profile):
            yield Check(
                "apparmor", False, f"The AppArmor profile of {name} does not let it run hooks: /etc/apparmor.d/{path.name}"
            )
        elif not _RUNS_PROGRAMS.search(profile):
            yield Check(
                "apparmor", False, f"The AppArmor profile of {name} lets hooks run no programs: /etc/apparmor.d/{path.name}"
            )
        else:
            yield Check("apparmor", True, f"The AppArmor profile of {name} lets it run hooks, and lets them run busctl.")


def _selinux(root: Path) -> Iterator[Check]:
    if not (root / "sys/fs/selinux/enforce").exists():
        return
    try:
        label = os.getxattr(root / HOOK, "security.selinux").decode(errors="replace").strip("\0")
    except OSError:
        return
    if ":virt_hook_t:" in label or label.endswith(":virt_hook_t"):
        yield Check("selinux", True, "The hook has the SELinux type virt_hook_t.")
    else:
        yield Check("selinux", False, f"The hook has the SELinux label {label}: sudo restorecon -v /{HOOK}")


def _others(root: Path) -> Iterator[Check]:
    """Every other hook for guests: the old single file, its neighbours, and what the usual helper script runs below them."""
    hooks, unseen = root / HOOKS, list[OSError]()
    found = [hooks / "qemu"]
    for directory, _, files in os.walk(hooks / "qemu.d", onerror=unseen.append):
        found += [Path(directory, file) for file in files]
    run = [path for path in sorted(found) if path != root / HOOK and _is_run(path, unseen)]
    yield from (_other(root, path) for path in run[:MOST])
    for error in [one for one in unseen if not isinstance(one, (FileNotFoundError, NotADirectoryError))][:1]:
        message = f"Other hooks in /{HOOKS} cannot be looked at: {error.strerror}. Try it as root."
        yield Check("others", None, message)


def _is_run(path: Path, unseen: list[OSError]) -> bool:
    """Tell whether libvirt runs a file: it takes those that anybody may execute. Adds what keeps it from being seen."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        unseen.append(error)
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))


def _other(root: Path, path: Path) -> Check:
    shown = f"/{path.relative_to(root)}"
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST)
    except OSError as error:
        return Check("others", None, f"{shown} cannot be looked at: {error.strerror}.")
    code = b"\n".join(line for line in text.splitlines() if not line.lstrip().startswith(b"#"))
    if _MOVES.search(code):
        return Check(
            "others",
            False,
            f"{shown} seems to move GPUs as well. Two who do so get in each other's way: have it leave the guests that "
            "have a GPU to gpuhandoff, or remove it.",
        )
    return Check("others", True, f"{shown} is another hook, which does not seem to move GPUs.")


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.isdecimal())
    except OSError:
        return []


def _process(root: Path, pid: str) -> tuple[str, float]:
    """Return a process's name, and when it was started in seconds since boot."""
    try:
        text = (root / "proc" / pid / "stat").read_text(errors="replace")
        return text[text.index("(") + 1 : text.rindex(")")], int(text[text.rindex(")") :].split()[20]) / os.sysconf(
            "SC_CLK_TCK"
        )
    except (OSError, ValueError, IndexError):
        return "", 0.0


def _boot_time(root: Path) -> int:
    try:
        found = re.search(r"^btime (\d+)$", (root / "proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
