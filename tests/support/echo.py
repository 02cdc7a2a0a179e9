"""A service on a bus that says what it is told, fails in every way, or never answers; and how it is asked."""

from __future__ import annotations

import asyncio

from gpuhandoff.errors import BusyError
from gpuhandoff.messages import Call, RemoteError, Reply
from gpuhandoff.service.bus import DBus
from tests.support.bus import TEST_NAME

INTERFACE = "org.example.Interface"


async def answer(call: Call) -> Reply:
    match call.member:
        case "Echo":
            return Reply(call.signature, call.body)
        case "Who":
            return Reply("sb", (call.sender, call.interactive))
        case "Busy":
            raise BusyError("somebody else works")
        case "Bug":
            raise KeyError("secret detail")
        case "Remote":
            raise RemoteError("org.example.Error.Far", "far away")
        case "WrongReply":
            return Reply("u", ("text",))
        case "Foreign":
            return Reply("s", (b"caf\xe9".decode("utf-8", "surrogateescape"),))
        case "ForeignError":
            raise BusyError("caf\udce9 \0 \x1b[2J has it")
        case "Never":
            await asyncio.Event().wait()
    return Reply()


async def ask(client: DBus, member: str, signature: str = "", *body: object, timeout: float = 5) -> tuple[object, ...]:
    return await client.call(TEST_NAME, "/", INTERFACE, member, signature, body, timeout=timeout)
