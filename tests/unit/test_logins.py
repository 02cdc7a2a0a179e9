"""What logind's answers say of sessions, and which of them say nothing."""

from __future__ import annotations

import pytest

from gpuhandoff.host.logins import NAME, PATH, Logins
from gpuhandoff.messages import NO_REPLY, SERVICE_UNKNOWN, Call, RemoteError, Reply, Variant
from gpuhandoff.simulation.loopback import LoopbackBroker, LoopbackBus

SECOND = f"{PATH}/session/c2"


class FakeLogind:
    """Two sessions; of the second one nothing can be had but an error."""

    def __init__(self, error: str = "") -> None:
        self.broker = LoopbackBroker()
        self._error = error

    async def start(self) -> LoopbackBus:
        bus = self.broker.connect()
        bus.serve(self._answer)
        await bus.request_name(NAME)
        return bus

    async def _answer(self, call: Call) -> Reply:
        if call.member == "ListSessions":
            return Reply(
                "a(susso)", ([("c1", 1000, "alice", "seat0", f"{PATH}/session/c1"), ("c2", 1001, "bob", "", SECOND)],)
            )
        if call.path == SECOND and self._error:
            raise RemoteError(self._error, "no.")
        return Reply("a{sv}", ({"Class": Variant("s", "user"), "Leader": Variant("u", 7)},))


@pytest.mark.parametrize("error", ["org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.login1.NoSuchSession"])
async def test_a_session_that_has_ended_since_it_was_listed_is_left_out(error: str) -> None:
    logind = FakeLogind(error)
    await logind.start()
    (one,) = await Logins(logind.broker.connect()).sessions()
    assert (one.id, one.uid, one.user, one.seat, one.kind, one.leader) == ("c1", 1000, "alice", "seat0", "user", 7)


@pytest.mark.parametrize("error", [NO_REPLY, "org.freedesktop.DBus.Error.AccessDenied"])
async def test_any_other_error_does_not_say_that_a_session_has_ended(error: str) -> None:
    logind = FakeLogind(error)
    await logind.start()
    with pytest.raises(RemoteError) as caught:
        await Logins(logind.broker.connect()).sessions()
    assert caught.value.name == error


async def test_without_logind_nobody_is_logged_in_unless_it_has_been_there() -> None:
    logind = FakeLogind()
    logins = Logins(logind.broker.connect())
    assert await logins.sessions() == ()
    service = await logind.start()
    assert [one.id for one in await logins.sessions()] == ["c1", "c2"]
    service.drop()
    with pytest.raises(RemoteError) as caught:
        await logins.sessions()
    assert caught.value.name == SERVICE_UNKNOWN
