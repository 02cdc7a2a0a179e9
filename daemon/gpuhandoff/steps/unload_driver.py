"""The native drivers go, siblings first, then the display driver with its modules.

Siblings are consumers of the display function, and the HDA function pins i915 (kernel.md 1.3). Modules are removed
rather than unbound where only this GPU needs them: that fails at once and costs nothing while somebody uses them,
where an unbind may never return (kernel.md 1.4).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from gpuhandoff.errors import InUseError, ProblemError, RolledBackError
from gpuhandoff.host import Host, OpenNode
from gpuhandoff.model.plan import Json
from gpuhandoff.model.roles import is_seat_service
from gpuhandoff.model.world import VFIO_DRIVER
from gpuhandoff.steps.bind_vfio import refuse_guest
from gpuhandoff.steps.holders import follows, name_open, wait_free
from gpuhandoff.steps.pci_function import (
    DEVICES,
    driver_of,
    identity_of,
    on_vfio,
    probe,
    refuse_gone,
    unbind,
    write_override,
)
from gpuhandoff.steps.proof import find_screens, probe_again, refuse_dead, screens
from gpuhandoff.steps.step import IncompleteError

PATIENCE = 3.0
"""Seconds for the last user of a module to let go: references drop shortly after descriptors do."""
LOAD_DEADLINE = 60.0
"""Seconds; nvidia's start-up alone takes 3.3 s (peers.md 4)."""

CHILDREN = 10.0
"""Seconds for the devices that drivers make: sound cards come after the bind, from a work queue (kernel.md 9)."""
_SUBSYSTEMS = ("drm", "sound")
_BLOCKING = ("/dev/snd/", "/dev/i2c-")

log = logging.getLogger(__name__)


class UnloadDriver:
    """Takes the card's functions from the host's drivers, and gives them back, the display function first."""

    name = "unload-driver"
    needs_gpu = True
    has_undo = True
    volatile = False

    async def capture(self, host: Host, arguments: Json) -> Json:
        """Remember each function's driver and which of the modules are loaded."""
        drivers = {address: driver_of(host, address) or "" for address in arguments["functions"]}
        modules = [name for name in arguments["modules"] if _loaded(host, name)]
        stack = [name for name in arguments["stack"] if _loaded(host, name)]
        return {
            "drivers": drivers,
            "modules": modules,
            "stack": stack,
            "children": _children(host, arguments["functions"]),
            "screens": screens(host, str(arguments["display"])),
            "identity": identity_of(host, str(arguments["display"])),
        }

    async def apply(self, host: Host, arguments: Json, saved: Json) -> None:
        """Look once more, unbind the siblings, remove the modules; without modules unbind the display function."""
        await _refuse_latecomers(host, arguments.get("nodes", ()), unbinding=not saved["modules"])
        display = str(arguments["display"])
        for address in sorted(arguments["functions"], reverse=True):
            if address != display and driver_of(host, address) != VFIO_DRIVER:
                await unbind(host, address)
        for name in saved["modules"]:
            await _remove(host, name)
        if not saved["modules"] and driver_of(host, display) != VFIO_DRIVER:
            await unbind(host, display)

    async def undo(self, host: Host, arguments: Json, saved: Json) -> None:
        """Load the modules and bind every function to the driver it had, aiming the override at it meanwhile.

        The whole stack, also where it was only unbound: another card of the same driver may have left since, and taken the
        modules with it. claim-functions then sets the override back as it was.
        """
        display = str(arguments["display"])
        refuse_gone(host, display, str(saved.get("identity", "")))
        drivers = {address: driver for address, driver in saved["drivers"].items() if driver}
        stray = [address for address, driver in drivers.items() if driver != VFIO_DRIVER and on_vfio(host, address)]
        await refuse_guest(host, stray)
        for address in sorted(stray, reverse=True):  # somebody else's probe brought it there before bind-vfio did
            await unbind(host, address)
        await refuse_dead(host, drivers)
        missing = await _give_back(host, display, drivers, saved["stack"])
        children = {address: names for address, names in saved["children"].items() if address not in missing}
        await self._prove(host, display, drivers.get(display, ""), {**saved, "children": children})
        if missing:
            address, why = next(iter(missing.items()))
            raise IncompleteError(f"{display} is back, but not {address}, which belongs to it: {why}")

    async def _prove(self, host: Host, display: str, driver: str, saved: Json) -> None:
        """See that the drivers show what they showed; raise RolledBackError for a card whose driver shows nothing of it."""
        was = saved["children"]
        if not await host.until(lambda: _has_children(host, was), timeout=CHILDREN):
            if self._shows_nothing(host, display, saved):
                await probe_again(host, display, driver)
                if not await host.until(lambda: not self._shows_nothing(host, display, saved), timeout=CHILDREN):
                    raise RolledBackError(
                        f"{display} is with its driver {driver}, which does not show it. `journalctl -k` may tell why."
                    )
            if not _has_children(host, was):
                log.warning("not every device of %s has come back: there were %s", display, was)
        if saved.get("screens"):
            await find_screens(host, display)

    @staticmethod
    def _shows_nothing(host: Host, display: str, saved: Json) -> bool:
        """Tell whether a card that had DRM nodes has none.

        Where the modules stayed that says nothing: older versions of nvidia-drm show a card again only when they are loaded.
        """
        had = "drm" in saved["children"].get(display, ())
        return bool(had and saved["modules"] and not host.kernel.entries(f"{DEVICES}/{display}/drm"))

    async def holds(self, host: Host, arguments: Json, saved: Json) -> bool:
        """Tell whether every function has left its native driver."""
        native = {address: driver for address, driver in saved["drivers"].items() if driver not in {"", VFIO_DRIVER}}
        return all(driver_of(host, address) != driver for address, driver in native.items())


async def _give_back(host: Host, display: str, drivers: Mapping[str, str], stack: Sequence[str]) -> dict[str, str]:
    """Load the modules and bind the functions, the display function first; return which siblings have no driver, and why."""
    returning = _Returning(display)
    for address, driver in drivers.items():
        if driver_of(host, address) != driver:
            await returning.attempt(address, write_override(host, address, driver))
    await _load(host, stack)
    for address in sorted(drivers, key=lambda one: (one != display, one)):
        if address not in returning.missing:  # its override may still be ours
            await returning.attempt(address, probe(host, address, drivers[address]))
    return returning.missing


class _Returning:
    """The desktop needs the display function alone: what its siblings do must not keep it in the dark."""

    def __init__(self, display: str) -> None:
        self._display = display
        self.missing: dict[str, str] = {}
        """Siblings for which something failed, and what."""

    async def attempt(self, address: str, work: Coroutine[Any, Any, None]) -> None:
        """Carry something out for a function; note why it fails for a sibling."""
        try:
            await work
        except (ProblemError, OSError) as error:
            if address == self._display:
                raise
            why = error.message if isinstance(error, ProblemError) else f"the kernel refuses it: {error.strerror}."
            self.missing.setdefault(address, why)


async def _load(host: Host, stack: Sequence[str]) -> None:
    for name in reversed(stack):
        if not _loaded(host, name):
            await host.kernel.load_module(name, deadline=LOAD_DEADLINE)
            if not _loaded(host, name):
                raise RolledBackError(f"The module {name} is not there, although it was loaded without an error.")


async def _refuse_latecomers(host: Host, nodes: Iterable[str], *, unbinding: bool) -> None:
    """Raise InUseError when somebody has opened the card since it was looked at: an unbind would wait for them, for ever.

    From now on nobody new can: the override keeps other drivers away, and this is the last look before the driver goes.
    Where modules are removed, which fails at once, only sound and I2C block, whose functions are unbound all the same.
    """
    blocking = [node for node in nodes if unbinding or node.startswith(_BLOCKING)]
    counts = partial(_counts, host)
    if not blocking or not any(map(counts, await host.processes.holding(blocking, mappings=unbinding))):
        return
    holding = await wait_free(host, blocking, timeout=PATIENCE, of=counts)
    if holding:
        raise InUseError(f"The GPU was opened while it was on its way: {name_open(holding)}. Close that and try again.")


def _counts(host: Host, one: OpenNode) -> bool:
    """Leave out who lets go by itself: a sound server with its card, logind with the desktop."""
    return not is_seat_service(one.process) and not follows(host, one)


def _loaded(host: Host, name: str) -> bool:
    """A built-in module has a directory too, but nothing counts its users: it is never removed."""
    return host.kernel.exists(f"/sys/module/{name}/refcnt")


def _children(host: Host, functions: Iterable[str]) -> dict[str, list[str]]:
    """Return, by function, which kinds of devices its driver has made."""
    found = {
        address: [name for name in _SUBSYSTEMS if host.kernel.entries(f"{DEVICES}/{address}/{name}")]
        for address in functions
    }
    return {address: names for address, names in found.items() if names}


def _has_children(host: Host, wanted: Mapping[str, list[str]]) -> bool:
    return all(host.kernel.entries(f"{DEVICES}/{address}/{name}") for address, names in wanted.items() for name in names)


async def _remove(host: Host, name: str) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    pause = 0.02
    while True:
        try:
            await host.kernel.remove_module(name)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno not in {errno.EAGAIN, errno.EBUSY}:
                raise
            if asyncio.get_running_loop().time() >= deadline:
                raise InUseError(_in_use(host, name)) from error
        else:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.5)


def _in_use(host: Host, name: str) -> str:
    count = "?"
    with contextlib.suppress(OSError):
        count = host.kernel.read(f"/sys/module/{name}/refcnt").strip()
    holders = ", ".join(host.kernel.entries(f"/sys/module/{name}/holders"))
    return (
        f"The module {name} cannot be unloaded: it is in use (reference count {count}"
        + (f", needed by {holders}" if holders else "")
        + "). Close the programs that use the GPU; `gpuhandoff holders` names those that have it open."
    )
