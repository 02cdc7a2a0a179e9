"""File descriptors that come with messages: each has an owner, who closes it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dbus_next import Message

from gpuhandoff.errors import ProblemError
from gpuhandoff.messages import RemoteError


def take(reply: Message) -> int:
    """Return the only descriptor of a reply; raises RemoteError."""
    index = reply.body[0] if len(reply.body) == 1 and reply.signature == "h" else len(reply.unix_fds)
    if index >= len(reply.unix_fds):
        close_all_of(reply)
        raise RemoteError(ProblemError.name, "The reply has no file descriptor.")
    descriptor = int(reply.unix_fds.pop(index))
    close_all_of(reply)
    os.set_inheritable(descriptor, False)
    return descriptor


def close_all_of(message: Message) -> None:
    """Close what came with a message."""
    close(message.unix_fds)


def close(descriptors: Iterable[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
