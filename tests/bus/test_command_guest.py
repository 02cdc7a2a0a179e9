"""`gpuhandoff run` for a guest: its devices, and a scope that a confined host does not confine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gpuhandoff.errors import AuthorizationRequiredError, ProblemError
from gpuhandoff.messages import Call, Reply, Variant
from gpuhandoff.service.bus import DBus, connect
from tests.support.command_daemon import GPU, Command, FakeDaemon, fake_daemon

CONFINED = [("confine-host", "apply", 1), ("confine-host", "done", 1)]
SESSION = "0::/user.slice/user-1000.slice/session-2.scope\n"
FUNCTIONS = ["0000:01:00.0", "0000:01:00.1"]


class FakeSystemd:
    """Notes what it is asked to start, and moves the process there or refuses."""

    def __init__(self, bus: DBus, cgroup: Path) -> None:
        self.bus = bus
        self.cgroup = cgroup
        self.calls: list[Call] = []
        self.refuses: ProblemError | None = None

    async def answer(self, call: Call) -> Reply:
        self.calls.append(call)
        if self.refuses is not None:
            raise self.refuses
        self.cgroup.write_text(f"0::/machine.slice/{call.body[0]}\n")
        return Reply("o", ("/org/freedesktop/systemd1/job/1",))


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with fake_daemon() as running:
        status = {"0000:01:00.0": Variant("a{sv}", {"functions": Variant("as", FUNCTIONS)})}
        running.answers = {
            "Handoff": running.begin(*CONFINED, result="done"),
            "Reclaim": running.begin(result="done"),
            "Status": (status,),
        }
        yield running


@pytest_asyncio.fixture
async def systemd(daemon: FakeDaemon, tmp_path: Path) -> AsyncIterator[FakeSystemd]:
    bus = await connect(daemon.address)
    one = FakeSystemd(bus, tmp_path / "cgroup")
    one.cgroup.write_text(SESSION)
    bus.serve(one.answer)
    await bus.request_name("org.freedesktop.systemd1")
    yield one
    await bus.close()


def inside(systemd: FakeSystemd) -> str:
    """Python that makes the command believe it is in that control group."""
    return f"from pathlib import Path; from gpuhandoff_command import scope; scope.CGROUP = Path({str(systemd.cgroup)!r})"


async def test_the_gpu_in_the_command(daemon: FakeDaemon) -> None:
    ended = await Command(daemon.address)("run", "--", "echo", "-M", "q35", "{gpu}", "-m", "4G")
    assert (ended.status, ended.err) == (0, "")
    assert (
        "-M q35 -device pcie-root-port,id=gpuhandoff,chassis=251 "
        "-device vfio-pci,host=0000:01:00.0,bus=gpuhandoff,addr=00.0,multifunction=on "
        "-device vfio-pci,host=0000:01:00.1,bus=gpuhandoff,addr=00.1 -m 4G\n"
    ) in ended.out
    assert daemon.members() == ["Handoff", "Status", "Reclaim"]


async def test_the_gpu_twice_is_refused_before_anything_is_done(daemon: FakeDaemon) -> None:
    ended = await Command(daemon.address)("run", "--json", "--", "echo", "{gpu}", "{gpu}")
    assert ended.status == 2
    assert "may be given once; nothing was done" in ended.err
    (told,) = ended.documents
    assert (told["event"], told["exit"]) == ("error", 2)
    assert ended.err == f"gpuhandoff: {told['message']}\n"
    assert daemon.members() == []


async def test_a_scope_of_its_own(daemon: FakeDaemon, systemd: FakeSystemd) -> None:
    ended = await Command(daemon.address)("run", "--cpus", "0-1", "--", "echo", "ran", prelude=inside(systemd))
    assert (ended.status, ended.err) == (0, "")
    assert "ran" in ended.out
    (call,) = systemd.calls
    assert (call.member, call.interactive) == ("StartTransientUnit", False)
    name, mode, properties, _ = call.body
    assert (name.startswith("gpuhandoff-run-"), name.endswith(".scope"), mode) == (True, True, "fail")
    given = {key: variant.value for key, variant in properties}
    assert given["Slice"] == "machine.slice"
    assert given["PIDs"] == [int(name.removeprefix("gpuhandoff-run-").removesuffix(".scope"))]


@pytest.mark.parametrize("cgroup", ["0::/\n", "0::/machine.slice/run.scope\n", "1:name=systemd:/user.slice\n", ""])
async def test_where_nothing_is_confined_systemd_is_not_asked(daemon: FakeDaemon, systemd: FakeSystemd, cgroup: str) -> None:
    systemd.cgroup.write_text(cgroup)
    ended = await Command(daemon.address)("run", "--cpus", "0-1", "true", prelude=inside(systemd))
    assert (ended.status, ended.err, systemd.calls) == (0, "", [])


async def test_who_may_not_have_one_is_refused_with_cpus(daemon: FakeDaemon, systemd: FakeSystemd) -> None:
    systemd.refuses = AuthorizationRequiredError("Interactive authentication required.")
    ended = await Command(daemon.address)("run", "--cpus", "0-1", "--", "echo", "ran", prelude=inside(systemd))
    assert (ended.status, ended.out) == (3, "")
    assert ended.err == (
        "gpuhandoff: --cpus would confine echo as well, which would run in user.slice: it cannot be moved to a scope of its "
        "own in machine.slice (Interactive authentication required). Start this as root, or with "
        "`systemd-run --slice=machine.slice`; nothing was done.\n"
    )
    (told,) = (await Command(daemon.address)("run", "--json", "--cpus", "0", "true", prelude=inside(systemd))).documents
    assert (told["event"], told["error"], told["exit"]) == ("error", "org.gpuhandoff.Error.Unsupported", 3)
    assert daemon.members() == []


async def test_and_told_where_the_configuration_confines(daemon: FakeDaemon, systemd: FakeSystemd) -> None:
    systemd.refuses = AuthorizationRequiredError("Interactive authentication required.")
    ended = await Command(daemon.address)("run", "--", "echo", "ran", prelude=inside(systemd))
    assert ended.status == 0
    assert "ran\n" in ended.out
    assert ended.err == (
        "gpuhandoff: the CPUs that the host gave up are not for echo either, which runs in user.slice (Interactive "
        "authentication required).\n"
    )
    daemon.answers["Handoff"] = daemon.begin(("bind-vfio", "done", 1), result="done")
    assert (await Command(daemon.address)("run", "true", prelude=inside(systemd))).err == ""


async def test_without_systemd(daemon: FakeDaemon, tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/system.slice/ssh.service\n")
    prelude = f"from pathlib import Path; from gpuhandoff_command import scope; scope.CGROUP = Path({str(cgroup)!r})"
    ended = await Command(daemon.address)("run", "--cpus", "0", "true", prelude=prelude)
    assert ended.status == 3
    assert "would run in system.slice" in ended.err
    assert daemon.job["Gpu"] == GPU
