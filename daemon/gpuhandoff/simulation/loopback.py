"""A message bus that never leaves the process: several participants, unique names, ownership, match rules."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextvars import Context, copy_context

from gpuhandoff.errors import ProblemError
from gpuhandoff.messages import (
    DISCONNECTED,
    NO_REPLY,
    SERVICE_UNKNOWN,
    Body,
    Call,
    Handler,
    Match,
    RemoteError,
    Reply,
    Signal,
    Unsubscribe,
)
from gpuhandoff.simulation.lives import Life, life_of, outside
from gpuhandoff.simulation.signatures import check

BUS = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
NAME_HAS_NO_OWNER = "org.freedesktop.DBus.Error.NameHasNoOwner"
NAME_TAKEN = "org.freedesktop.DBus.Error.Failed"
UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"


_Subscription = tuple["LoopbackBus", Match, Callable[[Signal], None], Context]


class LoopbackBroker:
    """What a bus daemon does: knows who is there, who owns which name, and who wants which signal."""

    def __init__(self) -> None:
        self._connections: dict[str, LoopbackBus] = {}
        self._owners: dict[str, str] = {}
        self._subscriptions: list[_Subscription] = []
        self._count = 0

    def connect(self, *, uid: int = 0) -> LoopbackBus:
        """Return a new connection of this user."""
        self._count += 1
        connection = LoopbackBus(self, f":1.{self._count}", uid)
        self._connections[connection.unique_name] = connection
        self._owner_changed(connection.unique_name, "", connection.unique_name)
        return connection

    def owner(self, name: str) -> str:
        """Return who has a name: a unique name, or empty."""
        return name if name in self._connections else self._owners.get(name, "")

    def own(self, name: str, connection: LoopbackBus) -> None:
        """Give a name to a connection."""
        if self._owners.get(name, connection.unique_name) != connection.unique_name:
            raise RemoteError(NAME_TAKEN, f"{name} is owned by {self._owners[name]}")
        self._owners[name] = connection.unique_name
        self._owner_changed(name, "", connection.unique_name)

    def leave(self, connection: LoopbackBus) -> None:
        """Forget a connection, its names and its subscriptions."""
        unique = connection.unique_name
        if self._connections.pop(unique, None) is None:
            return
        self._subscriptions = [one for one in self._subscriptions if one[0] is not connection]
        for name in [name for name, owner in self._owners.items() if owner == unique]:
            del self._owners[name]
            self._owner_changed(name, unique, "")
        self._owner_changed(unique, unique, "")

    def subscribe(self, connection: LoopbackBus, match: Match, callback: Callable[[Signal], None]) -> Unsubscribe:
        """Add a match rule."""
        entry = (connection, match, callback, copy_context())
        self._subscriptions.append(entry)

        def unsubscribe() -> None:
            self._subscriptions = [one for one in self._subscriptions if one is not entry]

        return unsubscribe

    def deliver(self, signal: Signal) -> None:
        """Hand a signal to everybody who wants it, later and in order."""
        check(signal.signature, signal.body)
        for entry in self._subscriptions:
            if self._wanted(entry[1], signal):
                asyncio.get_running_loop().call_soon(self._hand, entry, signal, context=entry[3])

    async def call(self, call: Call, destination: str) -> Reply:
        """Carry a method call to its destination and the answer back."""
        if destination == BUS:
            return self._answer(call)
        connection = self._connections.get(self.owner(destination))
        if connection is None:
            raise RemoteError(SERVICE_UNKNOWN, f"The name {destination} was not provided by any .service files")
        return await connection.answer(call)

    def _hand(self, entry: _Subscription, signal: Signal) -> None:
        if any(one is entry for one in self._subscriptions):
            entry[2](signal)

    def _wanted(self, match: Match, signal: Signal) -> bool:
        return (
            match.interface == signal.interface
            and match.member == signal.member
            and (match.sender is None or match.sender == signal.sender or self.owner(match.sender) == signal.sender)
            and (match.path is None or match.path == signal.path)
            and (match.arg0 is None or (bool(signal.body) and match.arg0 == signal.body[0]))
        )

    def _owner_changed(self, name: str, old: str, new: str) -> None:
        if self._subscriptions:
            self.deliver(Signal(BUS_PATH, BUS, "NameOwnerChanged", "sss", (name, old, new), BUS))

    def _answer(self, call: Call) -> Reply:
        """The bus's own methods."""
        if call.member == "ListNames":
            return Reply("as", ([BUS, *sorted(self._owners), *self._connections],))
        name = str(call.body[0]) if call.body else ""
        owner = self.owner(name)
        if call.member == "NameHasOwner":
            return Reply("b", (bool(owner),))
        if not owner:
            raise RemoteError(NAME_HAS_NO_OWNER, f"Could not get owner of name '{name}': no such name")
        if call.member == "GetNameOwner":
            return Reply("s", (owner,))
        if call.member == "GetConnectionUnixUser":
            return Reply("u", (self._connections[owner].uid,))
        raise RemoteError(UNKNOWN_METHOD, f"The bus has no method {call.member} here")


class LoopbackBus:
    """One participant's connection, a `messages.Bus`."""

    def __init__(self, broker: LoopbackBroker, unique_name: str, uid: int) -> None:
        self._broker = broker
        self._unique_name = unique_name
        self.uid = uid
        self._handler: Handler | None = None
        self._context: Context | None = None
        """Where the handler is at home."""
        self._closed = asyncio.Event()
        self._answers: dict[asyncio.Task[Reply], tuple[asyncio.Future[Reply], Life | None]] = {}
        """Who waits for what is being answered, and the life that it is."""

    @property
    def unique_name(self) -> str:
        """This connection's unique name."""
        return self._unique_name

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
        """Call a method and return the reply's body."""
        if self._closed.is_set():
            raise RemoteError(DISCONNECTED, "The connection is closed")
        check(signature, body)
        call = Call(self._unique_name, path, interface, member, signature, body, interactive)
        try:
            async with asyncio.timeout(timeout):
                reply = await self._broker.call(call, destination)
        except TimeoutError:
            raise RemoteError(NO_REPLY, f"{destination} did not answer {member} within {timeout:g} s") from None
        return reply.body

    async def call_for_descriptor(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Body = ()
    ) -> int:
        """Call a method that returns one descriptor; the answering side gives its own away."""
        (descriptor,) = await self.call(destination, path, interface, member, signature, body)
        return int(descriptor)

    async def subscribe(self, match: Match, callback: Callable[[Signal], None]) -> Unsubscribe:
        """Hand every matching signal to `callback`."""
        return self._broker.subscribe(self, match, callback)

    def emit(self, signal: Signal) -> None:
        """Send a signal."""
        if not self._closed.is_set():
            self._broker.deliver(
                Signal(signal.path, signal.interface, signal.member, signal.signature, signal.body, self._unique_name)
            )

    def serve(self, handler: Handler) -> None:
        """Answer calls with `handler`."""
        self._handler = handler
        self._context = copy_context()

    async def request_name(self, name: str) -> None:
        """Own a name."""
        self._broker.own(name, self)

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        await self._closed.wait()

    async def close(self) -> None:
        """Leave the bus."""
        self.drop()

    def drop(self) -> None:
        """Lose the connection at once, as when the process dies; calls that are being answered go on unheard."""
        if not self._closed.is_set():
            self._closed.set()
            self._broker.leave(self)
            for task in tuple(self._answers):
                self._answered(task)

    async def answer(self, call: Call) -> Reply:
        """Have the handler answer, in a task of its own: a caller that gives up does not stop it."""
        if self._handler is None:
            raise RemoteError(UNKNOWN_METHOD, f"{self._unique_name} has no method {call.member}")
        if self._context is None or self._closed.is_set():
            raise _unanswered()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._handle(self._handler, call), context=self._context.copy())
        answer: asyncio.Future[Reply] = loop.create_future()
        self._answers[task] = (answer, life_of())
        task.add_done_callback(self._answered, context=outside())
        return await answer

    def _answered(self, task: asyncio.Task[Reply]) -> None:
        """Hand the answer to the caller, or the bus's own when none will come."""
        if task not in self._answers:
            return
        answer, caller = self._answers.pop(task)
        problem = _unanswered() if not task.done() or task.cancelled() else task.exception()
        if answer.done() or (caller is not None and caller.ended):
            _take_back(task)
        elif problem is None:
            answer.set_result(task.result())
        else:
            answer.set_exception(problem)

    async def _handle(self, handler: Handler, call: Call) -> Reply:
        try:
            reply = await handler(call)
            check(reply.signature, reply.body)
        except (RemoteError, asyncio.CancelledError):
            raise
        except ProblemError as error:
            raise RemoteError(error.name, error.message) from error
        except Exception as error:
            raise RemoteError(ProblemError.name, f"{type(error).__name__} in the handler: {error}") from error
        return reply


def _take_back(task: asyncio.Task[Reply]) -> None:
    """Close the descriptor in an answer that nobody waits for any more, as the bus does."""
    reply = task.result() if task.done() and not task.cancelled() and task.exception() is None else None
    if reply is not None and reply.signature == "h":
        os.close(reply.body[0])


def _unanswered() -> RemoteError:
    return RemoteError(NO_REPLY, "The recipient disconnected from the message bus without replying")
