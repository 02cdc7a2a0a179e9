"""The libvirt hook as libvirt runs it: under the shells that /bin/sh may be, with a busctl that notes what it is told, and
with the real one on a real bus."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuhandoff import names
from gpuhandoff.hypervisor.patterns import patterns
from gpuhandoff.simulation.clock import run
from gpuhandoff.simulation.host import simulated_host
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.scenarios import igpu_dgpu
from gpuhandoff.survey import survey
from tests.support.bus import PATIENCE, REPOSITORY, PrivateBus, private_bus
from tests.support.domains import CARD, domain_xml

HOOK = REPOSITORY / "clients/libvirt/50-gpuhandoff"
SHELLS = ("dash", "bash")
OPERATIONS = ("prepare", "start", "started", "stopped", "release", "reconnect", "migrate", "restore", "attach")
CALLS = ("prepare", "started", "release", "reconnect", "migrate", "restore")
VETOES = {"prepare", "migrate", "restore"}
GPU = "0000:01:00.0"
WITHOUT_GPU = domain_xml(("0000:04:00.0",))
ABSENT = "The name org.gpuhandoff.Manager was not provided by any .service files"
SIZES = (10_000, 130_000, 1_000_000)

FAKE = """#!/bin/sh
printf '%s\\0' "$@" >>"$NOTES"
printf 'END\\0' >>"$NOTES"
[ -z "$SAYS" ] || printf '%s\\n' "$SAYS" >&2
exit "$STATUS"
"""


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str


class Hook:
    """Runs the hook as libvirt does: a bare environment, the XML on its standard input."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.shell = shell
        self.notes = directory / "notes"
        self.patterns = directory / "hook-patterns"
        self.environment = {"LC_ALL": "C", "PATH": os.environ["PATH"], "GPUHANDOFF_PATTERNS": str(self.patterns)}

    def fake(self, directory: Path, *, status: int = 0, says: str = "") -> None:
        """Have a busctl that notes its arguments."""
        busctl = directory / "bin" / "busctl"
        busctl.parent.mkdir(exist_ok=True)
        busctl.write_text(FAKE)
        busctl.chmod(0o755)
        self.environment |= {"PATH": f"{busctl.parent}:{os.environ['PATH']}", "NOTES": str(self.notes)}
        self.environment |= {"STATUS": str(status), "SAYS": says}

    def __call__(self, operation: str, xml: str, *, guest: str = "win11", extra: str = "-") -> Ended:
        end = "end" if operation in {"stopped", "release"} else "begin"
        ended = subprocess.run(
            [self.shell, HOOK, guest, operation, end, extra],
            input=xml.encode(), capture_output=True, env=self.environment, timeout=60, check=False,
        )  # fmt: skip
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def calls(self) -> list[list[str]]:
        """Return the arguments of every call, from the method's name on."""
        if not self.notes.exists():
            return []
        found = [one.split("\0")[:-1] for one in self.notes.read_text().split("END\0")[:-1]]
        return [one[one.index(names.HYPERVISOR_INTERFACE) + 1 :] for one in found]


@pytest.fixture(scope="module")
def known() -> str:
    """What the daemon writes for the hook."""

    async def main() -> str:
        machine = await igpu_dgpu()
        broker = LoopbackBroker()
        await machine.serve(broker)
        return patterns(await survey(simulated_host(machine, broker.connect()), ()))

    return run(main())


@pytest.fixture(params=SHELLS)
def hook(request: pytest.FixtureRequest, known: str, tmp_path: Path) -> Hook:
    one = Hook(request.param, tmp_path)
    one.patterns.write_text(known)
    one.fake(tmp_path)
    return one


@pytest.mark.parametrize("operation", CALLS)
def test_what_libvirt_tells_is_passed_on(hook: Hook, operation: str) -> None:
    xml = domain_xml(name="Jürgens VM").rstrip("\n")
    assert hook(operation, xml, guest="Jürgens VM", extra="shutdown") == Ended(0, "", "")
    end = "end" if operation == "release" else "begin"
    assert hook.calls() == [["Event", "sssss", "Jürgens VM", operation, end, "shutdown", xml]]


@pytest.mark.parametrize("operation", sorted({*OPERATIONS, "", "something-new"} - {*CALLS}))
def test_other_operations_need_nothing(hook: Hook, operation: str) -> None:
    assert hook(operation, domain_xml()) == Ended(0, "", "")  # printing nothing leaves a migrated guest's XML alone
    assert hook.calls() == []


@pytest.mark.parametrize("size", SIZES)
def test_xml_of_any_size_arrives_to_the_letter(hook: Hook, size: int) -> None:
    xml = domain_xml(padding=size).rstrip("\n")
    assert hook("prepare", xml) == Ended(0, "", "")
    (call,) = hook.calls()
    if call[0] == "Event":
        assert call[1:] == ["sssss", "win11", "prepare", "begin", "-", xml]
    else:
        assert call[:6] == ["EventInParts", "ssssas", "win11", "prepare", "begin", "-"]
        assert int(call[6]) == len(call[7:])
        assert "".join(call[7:]).rstrip("\n") == xml
        assert max(len(part.encode()) for part in call[7:]) < 131072
    assert (call[0] == "Event") == (size == SIZES[0])


@pytest.mark.parametrize("xml", [WITHOUT_GPU, domain_xml(()), "", "nonsense", domain_xml((), padding=500_000)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_guests_without_our_gpu_make_no_call(hook: Hook, operation: str, xml: str) -> None:
    hook.fake(hook.notes.parent, status=1, says="must not be called")
    assert hook(operation, xml) == Ended(0, "", "")
    assert hook.calls() == []


@pytest.mark.parametrize("text", [None, "", "\n\n"])
def test_without_gpus_there_is_nothing_to_do(hook: Hook, text: str | None) -> None:
    """The daemon was never started, or knows no GPU."""
    hook.patterns.unlink()
    if text is not None:
        hook.patterns.write_text(text)
    assert hook("prepare", domain_xml()) == Ended(0, "", "")
    assert hook.calls() == []


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("Call failed: 0000:01:00.0 is lent to win10.", "0000:01:00.0 is lent to win10."),
        (
            f"Call failed: {ABSENT}",
            f"gpuhandoffd, which has to make the GPU ready for win11, is not running and cannot be started: {ABSENT}",
        ),
        (
            "Call failed: Connection timed out",
            "gpuhandoffd has not answered; what it did for win11 is being undone. See gpuhandoff status.",
        ),
        (
            "Call failed: Message recipient disconnected from message bus without replying",
            "gpuhandoffd went away before the GPU was ready for win11. Try again.",
        ),
        (
            "Failed to connect to bus: No such file or directory",
            "the system bus cannot be reached for win11: Failed to connect to bus: No such file or directory",
        ),
    ],
)
@pytest.mark.parametrize("size", [0, 200_000])
def test_a_refusal_is_one_clear_sentence_and_vetoes_only_what_has_not_begun(
    hook: Hook, says: str, told: str, size: int
) -> None:
    hook.fake(hook.notes.parent, status=1, says=says)
    for operation in OPERATIONS:
        ended = hook(operation, domain_xml(padding=size))
        assert ended.status == (operation in VETOES)
        assert ended.out == ""
        assert ended.err == (f"gpuhandoff: {told}\n" if operation in CALLS else "")


def test_a_line_that_no_argument_holds_is_refused_in_words(hook: Hook) -> None:
    xml = domain_xml().replace("<devices>", f"<devices><!-- {'x' * 140_000} -->")
    assert hook("prepare", xml) == Ended(
        1, "", "gpuhandoff: a line of the XML of win11 is too long to be passed on: 128 KiB are the most.\n"
    )
    assert hook("reconnect", xml).status == 0


def test_it_gives_up_waiting_one_day(hook: Hook) -> None:
    hook.environment["GPUHANDOFF_HOOK_TIMEOUT"] = "7"
    hook("prepare", domain_xml())
    assert "--timeout=7" in hook.notes.read_text().split("\0")


@pytest.fixture(params=SHELLS)
def real(request: pytest.FixtureRequest, known: str, tmp_path: Path) -> Hook:
    """One with the real busctl."""
    one = Hook(request.param, tmp_path)
    one.patterns.write_text(known)
    return one


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket where a bus should be, which notices whoever comes."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "bus"))
        one.listen()
        one.settimeout(0.0)
        yield one


def test_nobody_comes_to_the_bus_for_guests_without_our_gpu(real: Hook, listener: socket.socket, tmp_path: Path) -> None:
    real.environment |= {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path / 'bus'}", "GPUHANDOFF_HOOK_TIMEOUT": "1"}
    for operation in OPERATIONS:
        assert real(operation, WITHOUT_GPU).status == 0
    with pytest.raises(BlockingIOError):
        listener.accept()
    process = subprocess.Popen(
        [real.shell, HOOK, "win11", "prepare", "begin", "-"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=real.environment,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(domain_xml().encode())
    process.stdin.close()
    listener.settimeout(PATIENCE)
    listener.accept()[0].close()  # for one with our GPU somebody does
    assert process.wait(PATIENCE) == 1
    assert process.stderr is not None
    process.stderr.close()


def test_without_a_bus(real: Hook, tmp_path: Path) -> None:
    real.environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={tmp_path / 'absent'}"
    assert real("reconnect", domain_xml()).status == 0
    ended = real("prepare", domain_xml())
    assert ended.status == 1
    assert ended.err.startswith("gpuhandoff: the system bus cannot be reached for win11: ")


def test_without_a_daemon(real: Hook, bus: PrivateBus) -> None:
    real.environment["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
    for padding in (0, 200_000):
        ended = real("prepare", domain_xml(padding=padding))
        assert ended.status == 1
        assert ended.err.startswith("gpuhandoff: gpuhandoffd, which has to make the GPU ready for win11, is not running and")
        assert ended.err.count("\n") == 1
        for operation in ("started", "release", "reconnect"):
            assert real(operation, domain_xml(padding=padding)).status == 0


@asynccontextmanager
async def simulated(hook: Hook) -> AsyncIterator[PrivateBus]:
    """Have the daemon over a simulated machine, and the hook on its bus."""
    with private_bus() as bus:
        hook.environment["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gpuhandoff", "--simulate", "igpu-dgpu",
            env=bus.environment(), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert daemon.stderr is not None
            while b"ready:" not in await asyncio.wait_for(daemon.stderr.readline(), PATIENCE):
                pass
            reading = asyncio.ensure_future(daemon.stderr.read())
            yield bus
        finally:
            daemon.terminate()
            await daemon.wait()
            await reading


def state(bus: PrivateBus) -> str:
    """Return the GPU's state as busctl tells it."""
    path = names.GPU_PATH_PREFIX + "0000_01_00_0"
    words = ("busctl", "--system", "get-property", names.BUS_NAME, path, names.GPU_INTERFACE, "State")
    return subprocess.run(words, env=bus.environment(), capture_output=True, text=True, check=True).stdout.split('"')[1]


async def test_from_prepare_to_release_with_the_real_daemon(real: Hook) -> None:
    async with simulated(real) as bus:
        for size in (0, *SIZES):
            xml = domain_xml(padding=size)
            assert await asyncio.to_thread(real, "prepare", xml) == Ended(0, "", ""), size
            assert await asyncio.to_thread(state, bus) == "detached"
            for operation in ("start", "started", "reconnect", "stopped"):
                assert await asyncio.to_thread(real, operation, xml) == Ended(0, "", "")
            assert await asyncio.to_thread(real, "release", xml) == Ended(0, "", "")
            assert await asyncio.to_thread(state, bus) == "host"


async def test_refusals_of_the_real_daemon(real: Hook) -> None:
    async with simulated(real) as bus:
        ended = await asyncio.to_thread(real, "prepare", domain_xml(CARD[:1]))
        assert ended == Ended(
            1,
            "",
            f"gpuhandoff: {GPU} (NVIDIA AD104 [GeForce RTX 4070]) has 2 functions that move together; the domain lacks "
            "0000:01:00.1. Add a hostdev for each of them.\n",
        )
        large = await asyncio.to_thread(real, "prepare", domain_xml(padding=1_040_000) + "<!--" + "\n" * 20_000 + "-->")
        assert (large.status, "at most 1024 KiB are read" in large.err) == (1, True)
        assert (await asyncio.to_thread(real, "prepare", domain_xml())).status == 0
        other = await asyncio.to_thread(lambda: real("prepare", domain_xml(name="win10"), guest="win10"))
        assert (other.status, other.err) == (
            1,
            f"gpuhandoff: {GPU} (NVIDIA AD104 [GeForce RTX 4070]) is lent to win11. Shut that guest down first.\n",
        )
        assert (await asyncio.to_thread(lambda: real("release", domain_xml(name="win10"), guest="win10"))).status == 0
        assert await asyncio.to_thread(state, bus) == "detached"
        restored = await asyncio.to_thread(real, "restore", domain_xml())
        assert (restored.status, "can be neither saved nor moved to another host" in restored.err) == (1, True)


def test_the_hook_can_be_run() -> None:
    assert os.access(HOOK, os.X_OK)
