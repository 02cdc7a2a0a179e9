"""A stand-in for polkit: allows everything but what a test or `--simulate-deny` denies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.messages import Call, RemoteError, Reply
from gpuhandoff.simulation.standin import StandIn

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
AUTHORITY_PATH = "/org/freedesktop/PolicyKit1/Authority"
CANCELLED = "org.freedesktop.PolicyKit1.Error.Cancelled"
ALLOW_INTERACTION = 1
REMEMBERED = 500
"""Questions."""


@dataclass(frozen=True, slots=True)
class Question:
    """One CheckAuthorization, for tests to look at."""

    action: str
    sender: str
    details: dict[str, str]
    interactive: bool


class SimulatedPolkit(StandIn):
    """PolicyKit1."""

    name = "org.freedesktop.PolicyKit1"

    def __init__(self, machine: SimulatedMachine) -> None:
        super().__init__(machine)
        self.denied: set[str] = set()
        self.challenged: set[str] = set()
        """Actions that need a password, which the person gives when asked."""
        self.unanswered: set[str] = set()
        """Actions whose dialog stays open until it is cancelled."""
        self.questions: list[Question] = []
        self._open: dict[tuple[str, str], asyncio.Event] = {}
        self.methods |= {
            (AUTHORITY, "CheckAuthorization"): ("(sa{sv})sa{ss}us", self._check),
            (AUTHORITY, "CancelCheckAuthorization"): ("s", self._cancel),
        }

    def deny(self, *actions: str) -> None:
        """Refuse these actions from now on."""
        self.denied.update(actions)

    async def _check(self, call: Call) -> Reply:
        (kind, subject), action, details, flags, cancellation = call.body
        interactive = bool(flags & ALLOW_INTERACTION)
        who = subject["name"].value if kind == "system-bus-name" else kind
        self.questions.append(Question(action, str(who), dict(details), interactive))
        if len(self.questions) > REMEMBERED:
            del self.questions[: REMEMBERED // 2]
        if action in self.unanswered and interactive:
            await self._wait_for_person(call.sender, cancellation)
        if action in self.denied:
            return _result(authorized=False)
        if action in self.challenged | self.unanswered and not interactive:
            return _result(authorized=False, challenge=True)
        return _result(authorized=True)

    async def _wait_for_person(self, sender: str, cancellation: str) -> None:
        cancelled = asyncio.Event()
        self._open[sender, cancellation] = cancelled
        try:
            await cancelled.wait()
        finally:
            del self._open[sender, cancellation]
        raise RemoteError(CANCELLED, "The authorization check was cancelled")

    async def _cancel(self, call: Call) -> Reply:
        dialog = self._open.get((call.sender, call.body[0]))
        if dialog is None:
            raise RemoteError("org.freedesktop.PolicyKit1.Error.Failed", "No such cancellation_id for name")
        dialog.set()
        return Reply()


def _result(*, authorized: bool, challenge: bool = False) -> Reply:
    return Reply("(bba{ss})", ((authorized, challenge, {}),))
