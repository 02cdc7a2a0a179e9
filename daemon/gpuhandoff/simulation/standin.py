"""What the stand-ins for systemd, logind and polkit share: a table of methods, properties, signals."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from gpuhandoff.errors import InvalidArgsError, UnknownMethodError
from gpuhandoff.messages import Body, Bus, Call, RemoteError, Reply, Signal, Variant
from gpuhandoff.simulation.faults import Operation

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

PROPERTIES = "org.freedesktop.DBus.Properties"
UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"
UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"

Method = Callable[[Call], Awaitable[Reply]]


class StandIn:
    """A service on a bus: any `messages.Bus`, in this process or not."""

    name = ""

    def __init__(self, machine: SimulatedMachine) -> None:
        self.machine = machine
        self.methods: dict[tuple[str, str], tuple[str, Method]] = {
            (PROPERTIES, "Get"): ("ss", self._get),
            (PROPERTIES, "GetAll"): ("s", self._get_all),
        }
        self._bus: Bus | None = None

    async def attach(self, bus: Bus) -> None:
        """Answer on `bus` under the service's name."""
        self._bus = bus
        bus.serve(self.answer)
        await bus.request_name(self.name)

    async def answer(self, call: Call) -> Reply:
        """Answer a call, or do what a fault makes of it."""
        signature, method = self.methods.get((call.interface, call.member), ("", None))
        if method is None:
            raise UnknownMethodError(f"{self.name} has no method {call.interface}.{call.member}")
        if call.signature != signature:
            raise InvalidArgsError(f"{call.member} takes {signature!r}, not {call.signature!r}")
        operation = Operation("call", f"{call.interface}.{call.member}", " ".join(str(one) for one in call.body))
        given: list[Reply] = []

        async def perform() -> Reply:
            given.append(await method(call))
            return given[0]

        try:
            reply = await self.machine.faults.guard(operation, perform)
        except BaseException:
            _take_back(given)
            raise
        return reply if isinstance(reply, Reply) else Reply()

    def emit(self, path: str, interface: str, member: str, signature: str, body: Body) -> None:
        """Send a signal, if there is a bus yet."""
        if self._bus is not None:
            self._bus.emit(Signal(path, interface, member, signature, body))

    def emit_changed(self, path: str, interface: str, changed: Mapping[str, Variant]) -> None:
        """Send PropertiesChanged."""
        self.emit(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", (interface, dict(changed), []))

    def properties(self, path: str, interface: str) -> Mapping[str, Variant] | None:
        """Return an object's properties of one interface; None when there is no such object."""
        del path, interface
        return None

    async def _get(self, call: Call) -> Reply:
        interface, name = call.body
        found = self._found(call.path, interface).get(name)
        if found is None:
            raise RemoteError(UNKNOWN_PROPERTY, f"Unknown interface {interface} or property {name}.")
        return Reply("v", (found,))

    async def _get_all(self, call: Call) -> Reply:
        return Reply("a{sv}", (dict(self._found(call.path, call.body[0])),))

    def _found(self, path: str, interface: str) -> Mapping[str, Variant]:
        found = self.properties(path, interface)
        if found is None:
            raise RemoteError(UNKNOWN_OBJECT, f"Unknown object '{path}'.")
        return found


def _take_back(given: list[Reply]) -> None:
    """Close the descriptor in a reply that never reaches its caller, as the kernel does with one in flight."""
    for reply in given:
        if reply.signature == "h":
            os.close(reply.body[0])


def escape(name: str) -> str:
    """Return a bus path label as systemd makes it: everything but letters and digits, and a leading digit, as _xx."""
    return (
        "".join(
            letter
            if letter.isascii() and letter.isalnum() and not (place == 0 and letter.isdigit())
            else f"_{ord(letter):02x}"
            for place, letter in enumerate(name)
        )
        or "_"
    )
