"""Calls from others: each is answered in a task of its own, with an error that is a sentence when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

from dbus_next import Message, MessageFlag

from gpuhandoff.errors import LimitsExceededError, ProblemError
from gpuhandoff.messages import Call, Handler, RemoteError, Reply, error_name
from gpuhandoff.service.bus.values import from_library, plain, to_library
from gpuhandoff.service.callers import Callers

PER_CALLER = 64
"""Calls of one caller that are answered at the same time; more are LimitsExceeded."""

log = logging.getLogger(__name__)


class Send(Protocol):
    """Sends a message, and a descriptor that is closed then."""

    def __call__(self, message: Message, descriptor: int | None = None, /) -> None:
        """Send it; never fails."""


class Answers:
    """What is being answered."""

    def __init__(self, callers: Callers, send: Send) -> None:
        self.handler: Handler | None = None
        self._callers = callers
        self._send = send
        self._answering: set[asyncio.Task[None]] = set()
        self._in_flight: Counter[str] = Counter()

    def stop(self) -> None:
        """Answer nothing more."""
        for task in list(self._answering):
            task.cancel()

    def accept(self, message: Message) -> None:
        """Answer a call, in time."""
        sender = message.sender or ""
        if self._in_flight[sender] >= PER_CALLER:
            self.refuse(message, LimitsExceededError(f"You have {PER_CALLER} calls waiting already."))
            return
        self._in_flight[sender] += 1
        task = asyncio.create_task(self._answer(message))
        self._answering.add(task)

        def answered(done: asyncio.Task[None]) -> None:
            self._answering.discard(done)
            self._in_flight[sender] -= 1
            if not self._in_flight[sender]:
                del self._in_flight[sender]

        task.add_done_callback(answered)

    async def _answer(self, message: Message) -> None:
        call = Call(
            message.sender or "",
            message.path or "/",
            message.interface or "",
            message.member or "",
            message.signature or "",
            tuple(from_library(value) for value in message.body),
            bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION),
        )
        try:
            if self.handler is None:
                raise ProblemError("The daemon is starting.")
            leave = await self._callers.enter(call.sender)
            if leave is None:
                return  # nobody is left to be answered
            try:
                self._reply(message, await self.handler(call))
            finally:
                leave()
        except (ProblemError, RemoteError) as error:
            self.refuse(message, error)
        except Exception:
            log.exception("%s.%s failed", call.interface, call.member)
            self.refuse(message, ProblemError("An internal error occurred; the journal of gpuhandoffd has the details."))

    def _reply(self, message: Message, reply: Reply) -> None:
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            body = [to_library(value) for value in reply.body]
            if reply.signature == "h":
                self._send(Message.new_method_return(message, "h", [0], unix_fds=body), body[0])
            else:
                self._send(Message.new_method_return(message, reply.signature, body))

    def refuse(self, message: Message, error: ProblemError | RemoteError) -> None:
        """Answer with an error."""
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._send(Message.new_error(message, error_name(error), plain(error.message)))
