"""The bus as values: what the rest of the daemon knows of D-Bus without importing a D-Bus library.

`gpuhandoff.service.bus` speaks the real protocol behind `Bus`; `gpuhandoff.simulation` has one that never
leaves the process. Bodies are tuples of plain Python values; a D-Bus variant is a `Variant` in both directions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gpuhandoff.errors import ProblemError

Body = tuple[Any, ...]


class Variant(NamedTuple):
    """A D-Bus variant: its signature and its value."""

    signature: str
    value: Any


@dataclass(frozen=True, slots=True)
class Call:
    """One method call as it arrived.

    `sender` is the caller's unique bus name, which is never reused while the bus lives. `interactive` is the
    message flag ALLOW_INTERACTIVE_AUTHORIZATION.
    """

    sender: str
    path: str
    interface: str
    member: str
    signature: str
    body: Body
    interactive: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A method's result."""

    signature: str = ""
    body: Body = ()


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal, received or to be sent. `sender` is empty on the way out."""

    path: str
    interface: str
    member: str
    signature: str = ""
    body: Body = ()
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """Which signals a subscriber wants; None matches anything."""

    interface: str
    member: str
    sender: str | None = None
    path: str | None = None
    arg0: str | None = None


class RemoteError(Exception):
    """The other side answered with an error, or never answered (`name` NoReply), or the bus is gone (Disconnected)."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


NO_REPLY = "org.freedesktop.DBus.Error.NoReply"
DISCONNECTED = "org.freedesktop.DBus.Error.Disconnected"
SERVICE_UNKNOWN = "org.freedesktop.DBus.Error.ServiceUnknown"
UNANSWERED = frozenset({NO_REPLY, DISCONNECTED, SERVICE_UNKNOWN})
"""Nobody has answered, for now: what was asked for was neither done nor refused."""

Handler = Callable[[Call], Awaitable[Reply]]
"""Answers a call, or raises ProblemError (any other exception becomes error Failed without details)."""

Unsubscribe = Callable[[], None]


class Bus(Protocol):
    """One connection to a message bus."""

    @property
    def unique_name(self) -> str:
        """This connection's unique name."""

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Body = (),
        *,
        timeout: float = 25.0,
        interactive: bool = False,
    ) -> Body:
        """Call a method and return the reply's body; raises RemoteError, also when `timeout` (seconds) passes."""

    async def call_for_descriptor(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Body = ()
    ) -> int:
        """Call a method that returns one file descriptor (`h`); the caller owns it. It is not inheritable."""

    async def subscribe(self, match: Match, callback: Callable[[Signal], None]) -> Unsubscribe:
        """Hand every matching signal to `callback` until unsubscribed; returns once the bus has the match rule."""

    def emit(self, signal: Signal) -> None:
        """Send a signal. Never blocks, never fails: a bus that is gone is noticed by `wait_closed`."""

    def serve(self, handler: Handler) -> None:
        """Answer every method call addressed to this connection with `handler`."""

    async def request_name(self, name: str) -> None:
        """Own a well-known name; raises RemoteError when somebody else has it."""

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""

    async def close(self) -> None:
        """Leave the bus."""


def error_name(error: Exception) -> str:
    """Return the D-Bus error name under which `error` is reported."""
    return error.name if isinstance(error, ProblemError | RemoteError) else ProblemError.name
