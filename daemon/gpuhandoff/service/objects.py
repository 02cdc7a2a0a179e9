"""The objects on the bus: what is published where, who answers which method, and the standard interfaces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuhandoff.authority.table import METHODS
from gpuhandoff.config.options import quote
from gpuhandoff.errors import (
    InvalidArgsError,
    PropertyReadOnlyError,
    UnknownMethodError,
    UnknownPropertyError,
    UnsupportedError,
)
from gpuhandoff.messages import Body, Bus, Call, Reply, Signal, Variant
from gpuhandoff.names import ROOT_PATH
from gpuhandoff.service.interface import (
    INTROSPECTABLE,
    OBJECT_MANAGER,
    PEER,
    PROPERTIES,
    interfaces,
    introspect,
    standard_interfaces,
)

MethodHandler = Callable[[Call], Awaitable[Body]]
Properties = dict[str, Any]


class ApiMismatchError(Exception):
    """XML, handlers and the authorisation table do not fit together: the daemon must not start."""


class ObjectTree:
    """Everything below /org/gpuhandoff, which is the ObjectManager."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._objects: dict[str, dict[str, Properties]] = {}
        self._handlers: dict[tuple[str, str], MethodHandler] = {}
        self._standard: dict[tuple[str, str], Callable[[Call], Body]] = {
            (PROPERTIES, "Get"): self._get,
            (PROPERTIES, "GetAll"): self._get_all,
            (PROPERTIES, "Set"): self._set,
            (INTROSPECTABLE, "Introspect"): self._introspect,
            (PEER, "Ping"): lambda _: (),
            (PEER, "GetMachineId"): lambda _: (_machine_id(),),
            (OBJECT_MANAGER, "GetManagedObjects"): self._managed,
        }

    def register(self, interface: str, member: str, handler: MethodHandler) -> None:
        """Have `handler` answer a method on every object with that interface."""
        self._handlers[interface, member] = handler

    def check(self) -> None:
        """Raise ApiMismatchError unless XML, handlers and authorisation table name the same methods."""
        known = {**interfaces(), **standard_interfaces()}
        declared = {(name, member) for name, one in known.items() for member in one.methods}
        handlers = {*self._handlers, *self._standard}
        for title, found in (("handler", handlers), ("row in the authorisation table", set(METHODS))):
            for interface, member in sorted(declared - found):
                raise ApiMismatchError(f"{interface}.{member} is in the XML, but there is no {title} for it.")
            for interface, member in sorted(found - declared):
                raise ApiMismatchError(f"{interface}.{member} has a {title}, but is not in the XML.")

    def serve(self) -> None:
        """Answer calls from now on."""
        self._bus.serve(self.answer)

    def publish(self, path: str, interface: str, properties: Mapping[str, Any]) -> None:
        """Show an object with all its properties, or update it when it is shown already."""
        if interface in self._objects.get(path, {}):
            self.update(path, interface, properties)
            return
        declared = interfaces()[interface].properties
        if set(properties) != set(declared):
            raise ApiMismatchError(f"{interface} has the properties {sorted(declared)}, not {sorted(properties)}")
        self._objects.setdefault(path, {})[interface] = dict(properties)
        shown = {name: self._variants(path, name) for name in self._names(path) if name == interface}
        self._bus.emit(Signal(ROOT_PATH, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", (path, shown)))

    def update(self, path: str, interface: str, properties: Mapping[str, Any]) -> None:
        """Announce those of the properties that have changed; an object that is not shown (any more) is left alone."""
        held = self._objects.get(path, {}).get(interface)
        if held is None:
            return
        declared = interfaces()[interface].properties
        changed = {name: value for name, value in properties.items() if held[name] != value}
        held.update(changed)
        announced = {
            name: Variant(declared[name].signature, value)
            for name, value in changed.items()
            if declared[name].emits == "true"
        }
        invalidated = [name for name in changed if declared[name].emits == "invalidates"]
        if announced or invalidated:
            body = (interface, announced, invalidated)
            self._bus.emit(Signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body))

    def withdraw(self, path: str) -> None:
        """Show an object no longer."""
        gone = self._objects.pop(path, None)
        if gone is not None:
            self._bus.emit(Signal(ROOT_PATH, OBJECT_MANAGER, "InterfacesRemoved", "oas", (path, sorted(gone))))

    def emit(self, path: str, interface: str, member: str, *body: Any) -> None:
        """Send a signal of ours."""
        self._bus.emit(Signal(path, interface, member, interfaces()[interface].signals[member], body))

    async def answer(self, call: Call) -> Reply:
        """Answer one call, or raise ProblemError."""
        known = {**interfaces(), **standard_interfaces()}
        if not call.interface:
            call = replace(call, interface=self._find_interface(call))
        interface = call.interface
        method = known[interface].methods.get(call.member) if interface in known else None
        if method is None or not self._has(call.path, interface):
            raise UnknownMethodError(f"There is no method {quote(call.member)} in {quote(interface)} at {quote(call.path)}.")
        if call.signature != method.takes:
            raise InvalidArgsError(
                f"{call.member}: arguments of type '{method.takes}' are expected, not {quote(call.signature)}."
            )
        standard = self._standard.get((interface, call.member))
        body = standard(call) if standard is not None else await self._handlers[interface, call.member](call)
        return Reply(method.returns, body)

    def _find_interface(self, call: Call) -> str:
        """A call may leave the interface out."""
        names = [*self._names(call.path), *standard_interfaces()]
        known = {**interfaces(), **standard_interfaces()}
        return next((name for name in names if call.member in known[name].methods), "")

    def _names(self, path: str) -> list[str]:
        return list(self._objects.get(path, {}))

    def _has(self, path: str, interface: str) -> bool:
        if interface == OBJECT_MANAGER:
            return path == ROOT_PATH
        if interface in standard_interfaces():
            return interface == PEER or path in self._objects or bool(self._children(path))
        return interface in self._names(path)

    def _children(self, path: str) -> set[str]:
        prefix = path.rstrip("/") + "/"
        return {name[len(prefix) :].partition("/")[0] for name in self._objects if name.startswith(prefix)}

    def _variants(self, path: str, interface: str) -> dict[str, Variant]:
        declared = interfaces()[interface].properties
        held = self._objects.get(path, {}).get(interface, {})
        return {name: Variant(declared[name].signature, value) for name, value in held.items()}

    def _get(self, call: Call) -> Body:
        interface, name = call.body
        found = self._all(call.path, interface).get(name)
        if found is None:
            raise UnknownPropertyError(f"{quote(interface)} has no property {quote(name)} at {quote(call.path)}.")
        return (found,)

    def _get_all(self, call: Call) -> Body:
        return (self._all(call.path, call.body[0]),)

    def _all(self, path: str, interface: str) -> dict[str, Variant]:
        if interface in standard_interfaces():
            return {}
        if interface not in self._names(path):
            raise UnknownPropertyError(f"{quote(path)} has no interface {quote(interface)}.")
        return self._variants(path, interface)

    def _set(self, call: Call) -> Body:
        interface, name, _ = call.body
        if name not in self._all(call.path, interface):
            raise UnknownPropertyError(f"{quote(interface)} has no property {quote(name)}.")
        raise PropertyReadOnlyError(f"{name} is read-only.")

    def _introspect(self, call: Call) -> Body:
        return (introspect(self._names(call.path), self._children(call.path), manager=call.path == ROOT_PATH),)

    def _managed(self, _: Call) -> Body:
        return ({path: {name: self._variants(path, name) for name in self._names(path)} for path in self._objects},)


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError as error:
        raise UnsupportedError("This machine has no /etc/machine-id.") from error
