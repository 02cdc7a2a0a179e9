"""What somebody who watches a simulated machine can have go wrong on it, by calls of org.gpuhandoff.Simulation.

Targets are the ends of what an operation is about, as `faults` compares them: "/snd_hda_intel/unbind", "StopUnit".
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from gpuhandoff.errors import UnknownMethodError
from gpuhandoff.messages import Call, Reply
from gpuhandoff.simulation.faults import before, hang, refuse

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

_APPLICATION = "/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/app-{name}-1.scope"


class Trouble:
    """Operations that hang or fail until somebody heals them, and programs that have a device open."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._healed = asyncio.Event()
        self._pids: list[int] = []

    def answer(self, call: Call) -> Reply:
        """Hold(target), Refuse(target), Open(program, uid, node), OpenBefore(program, uid, node, target), Heal()."""
        faults = self._machine.faults
        match call.member, call.body:
            case "Hold", (str(target),):
                faults.set(hang(self._healed), target=target)
            case "Refuse", (str(target),):
                faults.set(refuse(errno.EBUSY), target=target, nth=0)
            case "Open", (str(program), int(uid), str(node)):
                self._open(program, uid, node)
            case "OpenBefore", (str(program), int(uid), str(node), str(target)):
                faults.set(before(lambda: self._open(program, uid, node)), target=target)
            case "Heal", ():
                self._heal()
            case _:
                raise UnknownMethodError(f"The simulation has no method {call.member}.")
        return Reply()

    def _open(self, program: str, uid: int, node: str) -> None:
        cgroup = _APPLICATION.format(uid=uid, name=program) if uid else "/system.slice"
        self._pids.append(self._machine.processes.spawn(program, uid=uid, cgroup=cgroup, opens=[node]).pid)

    def _heal(self) -> None:
        """Let everything go on that hangs, and end the programs."""
        self._machine.faults.clear()
        self._healed.set()
        self._healed = asyncio.Event()
        while self._pids:
            self._machine.processes.end(self._pids.pop())
