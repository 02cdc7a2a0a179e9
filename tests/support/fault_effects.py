"""Every way in which an operation can go wrong, by the kind of operation."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterable

from gpuhandoff.messages import NO_REPLY, SERVICE_UNKNOWN, RemoteError, Reply
from gpuhandoff.simulation.faults import (
    Effect,
    Hang,
    Operation,
    Perform,
    fail_afterwards,
    hang,
    lie,
    partly,
    refuse,
    reject,
)
from gpuhandoff.simulation.machine import SimulatedMachine
from gpuhandoff.simulation.units import START_SECONDS

SERVICES = ("org.freedesktop.systemd1", "org.freedesktop.login1", "org.freedesktop.PolicyKit1")
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
NO = "the test says no"
KERNEL = {"write", "read", "load-module", "remove-module", "sync"}
LATE = 5.0
"""Seconds of a hang that no deadline minds."""
STALLED = 40.0
"""Seconds for which a service answers nobody: longer than the bus waits for an answer."""

ERRNOS: dict[str, tuple[str, ...]] = {
    "bind": ("EBUSY", "ENODEV", "ENOMEM", "EIO", "EAGAIN"),
    "drivers_probe": ("EINVAL", "ENODEV", "EIO"),
    "unbind": ("ENODEV", "EIO"),
    "driver_override": ("EINVAL", "ENODEV", "ENOMEM"),
    "write": ("EIO", "EINVAL", "EPERM", "ENOENT"),
    "read": ("EIO", "ENODEV"),
    "load-module": ("ENOENT", "EIO"),
    "remove-module": ("EAGAIN", "EBUSY", "ENOENT", "EPERM"),
    "sync": ("EIO",),
}
"""What the kernel may say, by the attribute that is written or by the kind of operation."""

CHANGING = {
    *("StartUnit", "StopUnit", "SetUnitProperties", "FreezeUnit", "ThawUnit", "ResetFailedUnit"),
    *("TerminateSession", "Inhibit", "Subscribe"),
}
"""Methods of systemd and logind that change something; all others tell."""
TELLING_NOTHING = {"SetUnitProperties", "FreezeUnit", "ThawUnit", "ResetFailedUnit", "TerminateSession"}
"""Methods whose reply is empty, so that a lie can be told."""


def changes(operation: Operation) -> bool:
    """Tell what changes the machine from what only looks."""
    return operation.kind != "call" or _member(operation) in CHANGING


def names(operation: Operation) -> Iterable[str]:
    """Yield the faults that this operation can suffer; ` always` means that it suffers it whenever it is tried again."""
    if operation.kind in KERNEL:
        yield from _kernel(operation)
    elif operation.kind == "job":
        results = ["failed", "timeout", "canceled", *(["dependency"] if operation.detail == "start" else [])]
        yield from results
        yield from ("failed always", "after", "lie", "lie always", "late", "hang")
        if operation.detail == "start":
            yield from ("partly", "partly always")
    elif _member(operation) in CHANGING:
        yield from ("denied", "denied always", "unknown", "no reply", "after", "late", "hang", "stall")
        if _member(operation) in TELLING_NOTHING:
            yield from ("lie", "lie always")
    else:
        yield from ("denied", "denied always", "unknown", "late", "hang")


def make(machine: SimulatedMachine, operation: Operation, name: str) -> tuple[Effect, Hang | None]:
    """Return the effect, and the hang that has to be resolved if it is one in the kernel."""
    name = name.removesuffix(" always")
    if operation.kind in KERNEL:
        return _kernel_effect(machine, operation, name)
    if operation.kind == "job":
        return _job_effect(machine, operation, name), None
    return _call_effect(machine, operation, name), None


def causes(operation: Operation, name: str) -> tuple[str, ...]:
    """Return what a message about this fault has to contain, any of them."""
    name = name.removesuffix(" always")
    if name == "EAGAIN" and operation.target.endswith("/bind"):  # put off by the driver: no error, only no driver
        return (operation.detail,)
    subject = (operation.target.rpartition("/")[2], operation.detail.strip() or operation.target)
    if name in errno.errorcode.values():
        return (name, os.strerror(getattr(errno, name)))
    if operation.kind in KERNEL:
        return ("test_hang",) if name.startswith("hang") else ("EIO", os.strerror(errno.EIO), *subject)
    if operation.kind == "job":
        return (operation.target,)
    return (
        NO,
        "did not answer",
        "without replying",
        "was not provided",
        "did not start",
        "did not stop",
        operation.detail.partition(" ")[0],
    )


def _kernel(operation: Operation) -> Iterable[str]:
    errnos = ERRNOS.get(operation.target.rpartition("/")[2]) or ERRNOS[operation.kind]
    for name in errnos:
        yield name
        yield f"{name} always"
    yield from ("late", "late error", "hang", "hang error", "hang after")
    if operation.kind != "read":
        yield from ("after", "after always", "lie", "lie always")
    if operation.kind == "load-module" or operation.target.endswith("/nr_hugepages"):
        yield from ("partly", "partly always")


def _kernel_effect(machine: SimulatedMachine, operation: Operation, name: str) -> tuple[Effect, Hang | None]:
    match name:
        case "":
            return _nothing, None
        case "after":
            return fail_afterwards(), None
        case "lie":
            return lie(), None
        case "partly":
            return _partly(machine, operation), None
        case "late" | "late error":
            return _late(machine, error=errno.EIO * name.endswith("error")), None
        case "hang" | "hang error" | "hang after":
            hanging = Hang(machine.waits, function="test_hang", afterwards=name.endswith("after"))
            return hanging.effect, hanging
    return refuse(getattr(errno, name)), None


def _job_effect(machine: SimulatedMachine, operation: Operation, name: str) -> Effect:
    match name:
        case "":
            return _nothing
        case "after":
            return _reports("failed")
        case "lie":
            return lie("done")
        case "partly":
            return _dies_at_once(machine, operation)
        case "late":
            return _late(machine)
        case "hang":
            return hang()
    return lie(name)


def _call_effect(machine: SimulatedMachine, operation: Operation, name: str) -> Effect:
    silence = RemoteError(NO_REPLY, "The service disconnected without replying")
    match name:
        case "":
            return _nothing
        case "denied":
            return reject(RemoteError(DENIED, NO))
        case "unknown":
            return reject(RemoteError(SERVICE_UNKNOWN, "The name was not provided by any .service files"))
        case "no reply":
            return reject(silence)
        case "after":
            return _then_raises(silence)
        case "lie":
            return lie(Reply())
        case "late":
            return _stall(machine, operation, LATE)
        case "stall":
            return _stall(machine, operation, STALLED)
    return hang()


async def _nothing(perform: Perform) -> object:
    """Be no fault at all."""
    return await perform()


def _late(machine: SimulatedMachine, *, error: int = 0) -> Effect:
    async def effect(perform: Perform) -> object:
        hanging = Hang(machine.waits, function="test_late")
        asyncio.get_running_loop().call_later(LATE, hanging.resolve, error)
        return await hanging.effect(perform)

    return effect


def _reports(result: str) -> Effect:
    async def effect(perform: Perform) -> object:
        await perform()
        return result

    return effect


def _then_raises(error: Exception) -> Effect:
    async def effect(perform: Perform) -> object:
        await perform()
        raise error

    return effect


def _partly(machine: SimulatedMachine, operation: Operation) -> Effect:
    """What the kernel does by halves: modprobe loads what a module needs, huge pages come as far as there is room."""
    if operation.kind == "load-module":
        return partly(lambda: _load_needed(machine, operation.target), refuse(errno.EIO))
    wanted = int(operation.detail)

    async def some() -> None:
        machine.memory.pages += (wanted - machine.memory.pages) // 2

    return partly(some, lie())


async def _load_needed(machine: SimulatedMachine, name: str) -> None:
    for needed in machine.modules.available[name].needs:
        await machine.modules.load(needed)


def _dies_at_once(machine: SimulatedMachine, operation: Operation) -> Effect:
    """A service that ends while it starts: its job has failed, and it does not come back by itself."""

    async def effect(_perform: Perform) -> object:
        unit = machine.units.find(operation.target)
        if unit is not None:
            unit.active_state, unit.sub_state = "activating", "start"
            await machine.waits.takes(START_SECONDS)
            unit.active_state = unit.sub_state = "failed"
        return "failed"

    return effect


def _stall(machine: SimulatedMachine, operation: Operation, seconds: float) -> Effect:
    """The service stops for a while; what it is asked meanwhile waits its turn, and is done although nobody waits for it."""
    service = next(name for name in SERVICES if name in _words(operation))
    goes_on = asyncio.Event()
    turn = asyncio.Lock()
    began: list[float] = []

    def same(other: Operation) -> bool:
        return bool(began) and not goes_on.is_set() and other.kind == "call" and service in _words(other)

    async def wait(perform: Perform) -> object:
        async with turn:
            await goes_on.wait()
            return await perform()

    async def effect(perform: Perform) -> object:
        began.append(asyncio.get_running_loop().time())
        asyncio.get_running_loop().call_later(seconds, goes_on.set)
        machine.faults.set(wait, nth=0, when=same)
        return await wait(perform)

    return effect


def _words(operation: Operation) -> str:
    """Return what names the service: for its properties that is the interface that is asked for."""
    return f"{operation.target} {operation.detail}"


def _member(operation: Operation) -> str:
    return operation.target.rpartition(".")[2]
