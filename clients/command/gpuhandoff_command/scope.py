"""A scope of its own for the command of `gpuhandoff run`, so that CPUs which the host gives up are not taken from the guest.

A handoff that confines the host confines user.slice, system.slice and init.scope; machine.slice is where guests are. This
process moves there, and what it starts is there from its first moment on. There it also outlives the desktop's end.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gpuhandoff_command.arguments import Typed
from gpuhandoff_command.connection import Connection
from gpuhandoff_command.exits import CallError

CGROUP = Path("/proc/self/cgroup")
CONFINED = frozenset({"init.scope", "system.slice", "user.slice"})
SLICE = "machine.slice"
PATIENCE = 5.0
"""Seconds for systemd to carry out what it has agreed to."""
PAUSE = 0.02


async def move_out(connection: Connection) -> str:
    """Move this process out of what a handoff confines; return why that was not possible, or "" where it is out.

    systemd asks polkit (manage-units), and nobody is prompted for a password for this alone: root may, others rarely.
    """
    if not confined():
        return ""
    properties = [
        ("Description", Typed("s", "A program with a GPU of its own (gpuhandoff run)")),
        ("Slice", Typed("s", SLICE)),
        ("CollectMode", Typed("s", "inactive-or-failed")),
        ("PIDs", Typed("au", [os.getpid()])),
    ]
    try:
        await connection.start_unit(f"gpuhandoff-run-{os.getpid()}.scope", properties)
    except CallError as error:
        return error.message.rstrip(".")
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while confined():  # systemd moves it after it has answered, and tells nobody
        if asyncio.get_running_loop().time() > deadline:
            return f"systemd has not done so within {PATIENCE:g} s"
        await asyncio.sleep(PAUSE)
    return ""


def confined() -> str:
    """Return the slice or scope, of those that a handoff confines, in which this process is; "" for none."""
    try:
        lines = CGROUP.read_text().splitlines()
    except OSError:
        return ""
    unified = next((line[3:] for line in lines if line.startswith("0::")), "")
    top = unified.strip("/").partition("/")[0]
    return top if top in CONFINED else ""
