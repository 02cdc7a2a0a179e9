"""polkit on a private bus: the real one with the policy that we ship, and one that does as a test tells it."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gpuhandoff.messages import Bus, Call, RemoteError, Reply
from tests.support.bus import PATIENCE, REPOSITORY, PrivateBus, stop
from tests.support.stranger import Stranger

NAME = "org.freedesktop.PolicyKit1"
AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
POLICY = REPOSITORY / "polkit" / "org.gpuhandoff.policy"
ACTIONS = Path("/usr/share/polkit-1/actions")
RULES = Path("/etc/polkit-1/rules.d")
PROGRAMS = (Path("/usr/lib/polkit-1/polkitd"), Path("/usr/libexec/polkitd"), Path("/usr/libexec/polkit-1/polkitd"))


def find_polkitd() -> Path | None:
    """Return the program, where it is installed and we may start it in a mount namespace."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return None
    return next((path for path in PROGRAMS if path.exists()), None)


@dataclass(frozen=True, slots=True)
class Login:
    """A logind session in which a process is, as far as polkitd can see."""

    pid: int
    uid: int
    session: str
    seat: str = "seat0"
    """Empty: it came over the network."""
    active: bool = True


@contextmanager
def real_polkit(bus: PrivateBus, *, rules: str = "", logins: Sequence[Login] = ()) -> Iterator[None]:
    """Have polkitd answer on `bus`.

    Its directories cannot be chosen: it gets ours mounted over them in a mount namespace of its own, which ends with it.
    It reads sessions where logind leaves them, and which process is in which from /proc: those are ours there as well.
    """
    program = find_polkitd()
    if program is None:
        raise RuntimeError("polkitd cannot be started")
    directory = Path(tempfile.mkdtemp(prefix="gpuhandoff-polkit-"))
    try:
        directory.chmod(0o755)
        actions, rule_files = directory / "actions", directory / "rules"
        actions.mkdir(mode=0o755)
        rule_files.mkdir(mode=0o755)
        shutil.copy(POLICY, actions)
        (rule_files / "50-test.rules").write_text(rules)
        mounts = {actions: ACTIONS, rule_files: RULES, **_write_logins(directory, logins)}
        script = " && ".join(
            [
                *(f"mount --bind {shlex.quote(str(ours))} {theirs}" for ours, theirs in mounts.items()),
                f"exec {program} --no-debug",
            ]
        )
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], env=bus.environment()
        )
        try:
            _wait_for_name(bus, process)
            yield
        finally:
            stop(process)
    finally:
        shutil.rmtree(directory)


def _write_logins(directory: Path, logins: Sequence[Login]) -> dict[Path, Path]:
    """Write what logind would, and each process's cgroup; return what belongs where."""
    mounts = {directory / name: Path("/run/systemd") / name for name in ("sessions", "users", "seats")}
    for made, where in mounts.items():
        made.mkdir(mode=0o755)
        where.mkdir(mode=0o755, parents=True, exist_ok=True)
    for login in logins:
        state = "active" if login.active else "online"
        lines = [f"UID={login.uid}", f"ACTIVE={int(login.active)}", f"STATE={state}", f"REMOTE={int(not login.seat)}"]
        lines += [f"SEAT={login.seat}"] if login.seat else []
        (directory / "sessions" / login.session).write_text("\n".join(lines) + "\n")
        (directory / "users" / str(login.uid)).write_text(f"STATE={state}\n")
        group = f"/user.slice/user-{login.uid}.slice/session-{login.session}.scope"
        cgroup = directory / f"cgroup-{login.pid}"
        cgroup.write_text(f"1:name=systemd:{group}\n0::{group}\n")
        mounts[cgroup] = Path(f"/proc/{login.pid}/cgroup")
    return mounts


def _wait_for_name(bus: PrivateBus, process: subprocess.Popen[bytes]) -> None:
    dbus = "org.freedesktop.DBus"
    until = time.monotonic() + PATIENCE
    with Stranger(bus.address) as stranger:
        while stranger.call(dbus, "/", dbus, "NameHasOwner", "s", [NAME]).body != [True]:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("polkitd does not start")
            time.sleep(0.02)


@dataclass
class FakePolkit:
    """Answers as it is told: yes, no, challenge, dismissed, never, prompt (which stays open), slow (a yes), or an error."""

    answer: str = "yes"
    questions: list[tuple[str, str, dict[str, str], bool]] = field(default_factory=list)
    """Caller, action, details, whether a person may be asked."""
    cancelled: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    cancel_seen: asyncio.Event = field(default_factory=asyncio.Event)
    open: set[str] = field(default_factory=set)
    waiting: int = 0
    most_waiting: int = 0

    async def attach(self, bus: Bus) -> None:
        """Answer on `bus`."""
        bus.serve(self._handle)
        await bus.request_name(NAME)

    async def _handle(self, call: Call) -> Reply:
        if call.member == "CancelCheckAuthorization":
            self.cancelled.append(call.body[0])
            self.cancel_seen.set()
            return Reply()
        (kind, subject), action, details, flags, cancellation = call.body
        assert kind == "system-bus-name"
        self.questions.append((subject["name"].value, action, details, bool(flags & 1)))
        self.open.add(cancellation)
        self.asked.set()
        if self.answer == "never" or (self.answer == "prompt" and flags & 1):
            await asyncio.Event().wait()
        if self.answer == "slow":
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            await asyncio.sleep(0.01)
            self.waiting -= 1
        if self.answer == "error":
            raise RemoteError("org.freedesktop.PolicyKit1.Error.Failed", "no such action")
        hints = {"polkit.dismissed": "true"} if self.answer == "dismissed" else {}
        result = (self.answer in {"yes", "slow"}, self.answer in {"challenge", "dismissed", "prompt"}, hints)
        return Reply("(bba{ss})", (result,))
