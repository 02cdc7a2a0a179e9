"""A daemon that says what a test tells it to, and the command that talks to it as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gpuhandoff import names
from gpuhandoff.errors import ProblemError
from gpuhandoff.messages import Body, Call, Reply, Signal, Variant
from gpuhandoff.service.bus import DBus, connect
from tests.support.bus import private_bus

GPU = "/org/gpuhandoff/gpus/pci_0000_01_00_0"
OTHER = "/org/gpuhandoff/gpus/pci_0000_02_00_0"
JOB = "/org/gpuhandoff/jobs/1"
PATIENCE = 60.0

Answer = Body | ProblemError | Callable[[Call], Awaitable[Body]]

_SIGNATURES = {
    "Handoff": "o",
    "Reclaim": "o",
    "Status": "a{sv}",
    "Plan": "a(ssa{sv})",
    "Preview": "a{sv}",
    "Diagnose": "aa{sv}",
    "Holders": "aa{sv}",
    "Cancel": "",
} | {
    "History": "aa{sv}",
    "Report": "s",
    "Inhibit": "u",
}
_SIGNALS = {"StateChanged": "oss", "Progress": "ossuu", "DriverChanged": "sss", "PrepareForHandoff": "ob"} | {
    "JobNew": "o",
    "JobRemoved": "os",
}


class FakeDaemon:
    """Owns the name, notes calls, gives prepared answers."""

    def __init__(self, bus: DBus, address: str) -> None:
        self.bus = bus
        self.address = address
        self.calls: list[Call] = []
        self.answers: dict[str, Answer] = {}
        self.job: dict[str, Any] = {"Operation": "handoff", "Gpu": GPU, "Result": "", "ErrorName": "", "ErrorMessage": ""}
        self.called = asyncio.Condition()
        self._acts: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, address: str) -> FakeDaemon:
        """Take the name."""
        daemon = cls(await connect(address), address)
        daemon.bus.serve(daemon._answer)
        await daemon.bus.request_name(names.BUS_NAME)
        return daemon

    def members(self) -> list[str]:
        """Return what was called, properties aside."""
        return [call.member for call in self.calls if call.member != "GetAll"]

    def last(self, member: str) -> Call:
        """Return the latest call of a method."""
        return next(call for call in reversed(self.calls) if call.member == member)

    async def until(self, member: str) -> None:
        """Return when a method has been called."""
        async with self.called:
            await asyncio.wait_for(self.called.wait_for(lambda: member in self.members()), PATIENCE)

    def emit(self, member: str, *body: Any) -> None:
        """Send a signal of the manager."""
        self.bus.emit(Signal(names.MANAGER_PATH, names.MANAGER_INTERFACE, member, _SIGNALS[member], body))

    def begin(self, *acts: Any, result: str = "", error: str = "", message: str = "") -> Callable[[Call], Awaitable[Body]]:
        """Return an answer that starts a job: (step, phase, index) each is a Progress of 2 steps; `result` ends it."""

        async def answer(call: Call) -> Body:
            self.job |= {"Operation": call.member.lower(), "Result": ""}
            self.emit("JobNew", JOB)
            self._later(self.play(*acts, result=result, error=error, message=message))
            return (JOB,)

        return answer

    async def play(self, *acts: Any, result: str = "", error: str = "", message: str = "") -> None:
        """Let a job go on, and end when there is a result."""
        for step, phase, index in acts:
            self.emit("Progress", self.job["Gpu"], step, phase, index, 2)
        if result:
            self.end(result, error, message)

    def end(self, result: str, error: str = "", message: str = "") -> None:
        """End the job."""
        self.job |= {"Result": result, "ErrorName": error, "ErrorMessage": message}
        self.emit("JobRemoved", JOB, result)

    async def close(self) -> None:
        """Leave the bus."""
        for task in self._acts:
            task.cancel()
        await self.bus.close()

    def _later(self, act: Any) -> None:
        task = asyncio.ensure_future(act)
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    async def _answer(self, call: Call) -> Reply:
        self.calls.append(call)
        async with self.called:
            self.called.notify_all()
        if call.member == "GetAll":
            return Reply("a{sv}", ({key: Variant("o" if key == "Gpu" else "s", value) for key, value in self.job.items()},))
        answer = self.answers.get(call.member, ())
        if isinstance(answer, ProblemError):
            raise answer
        body = answer if isinstance(answer, tuple) else await answer(call)
        return Reply(_SIGNATURES[call.member], body)


@asynccontextmanager
async def fake_daemon() -> AsyncIterator[FakeDaemon]:
    """Have a daemon on a bus of its own."""
    with private_bus() as bus:
        daemon = await FakeDaemon.start(bus.address)
        yield daemon
        await daemon.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended."""

    status: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        """The output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """Starts the command on a bus."""

    def __init__(self, address: str) -> None:
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("LC_")},
            "DBUS_SYSTEM_BUS_ADDRESS": address,
            "LANG": "C.UTF-8",
        }

    async def start(self, *words: str, prelude: str = "", **environment: str) -> asyncio.subprocess.Process:
        """Start it; `prelude` is Python that runs first."""
        program: Sequence[str] = ("-m", "gpuhandoff_command")
        if prelude:
            program = ("-c", f"{prelude}\nimport sys; from gpuhandoff_command.__main__ import main; sys.exit(main())")
        # However the tests were started (nohup ignores SIGHUP), the command is started as a shell would.
        return await asyncio.create_subprocess_exec(
            *("env", "--default-signal=HUP,INT,TERM", sys.executable),
            *program,
            *words,
            env=self.environment | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def finish(self, process: asyncio.subprocess.Process) -> Ended:
        """Wait for its end."""
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def __call__(self, *words: str, prelude: str = "", **environment: str) -> Ended:
        """Run it to its end."""
        return await self.finish(await self.start(*words, prelude=prelude, **environment))
