"""Who wants which signals of one connection, and the match rules that make the bus send them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from gpuhandoff.messages import Bus, Match, Signal, Unsubscribe
from gpuhandoff.service.owners import DBUS, DBUS_PATH, Owners

log = logging.getLogger(__name__)


class Subscriptions:
    """Callbacks by match; one rule at the bus for all that share it."""

    def __init__(self, bus: Bus, drop_rule: Callable[[str], None]) -> None:
        self._bus = bus
        self._drop_rule = drop_rule
        self._owners = Owners(bus)
        self._entries: list[tuple[Match, Callable[[Signal], None]]] = []
        self._rules: Counter[str] = Counter()

    async def add(self, match: Match, callback: Callable[[Signal], None]) -> Unsubscribe:
        """Hand matching signals to `callback`; returns once the bus has the rule. Raises RemoteError."""
        if match.sender is not None:
            await self._owners.follow(match.sender)
        rule = _rule(match)
        entry = (match, callback)
        # Before the rule: what follows the bus's answer at once must find its subscriber.
        self._entries.append(entry)
        self._rules[rule] += 1

        def unsubscribe() -> None:
            if self._forget(entry):
                self._rules[rule] -= 1
                if not self._rules[rule]:
                    del self._rules[rule]
                    self._drop_rule(rule)

        if self._rules[rule] == 1:
            try:
                await self._bus.call(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", (rule,))
            except BaseException:
                unsubscribe()
                raise
        return unsubscribe

    def hand_out(self, signal: Signal) -> None:
        """Call everybody who wants `signal`. Never raises."""
        for entry in list(self._entries):
            match, callback = entry
            if self._wants(match, signal) and any(one is entry for one in self._entries):
                try:
                    callback(signal)
                except Exception:
                    log.exception("a subscriber to %s.%s failed", signal.interface, signal.member)

    def may_want(self, sender: str, first: str) -> bool:
        """Tell whether anybody may want a signal of `sender`, a unique name or the bus itself, with that first argument."""
        return any(
            (match.arg0 is None or match.arg0 == first)
            and (match.sender is None or self._owners.owner(match.sender) == sender)
            for match, _ in self._entries
        )

    def _forget(self, entry: tuple[Match, Callable[[Signal], None]]) -> bool:
        count = len(self._entries)
        self._entries = [one for one in self._entries if one is not entry]
        return len(self._entries) < count

    def _wants(self, match: Match, signal: Signal) -> bool:
        """Check again what the bus has matched: anybody may send a signal to this connection alone, unmatched."""
        return (
            (match.interface, match.member) == (signal.interface, signal.member)
            and (match.path is None or match.path == signal.path)
            and (match.arg0 is None or (len(signal.body) > 0 and signal.body[0] == match.arg0))
            and (match.sender is None or self._owners.owner(match.sender) == signal.sender)
        )


def _rule(match: Match) -> str:
    """Return the rule for the bus.

    All who watch callers share one: a bus holds 512 rules of a connection, which callers with open password prompts could
    use up.
    """
    watches_caller = match.member == "NameOwnerChanged" and (match.arg0 or "").startswith(":")
    parts = {
        "interface": match.interface,
        "member": match.member,
        "sender": match.sender,
        "path": match.path,
        "arg0": None if watches_caller else match.arg0,
    }
    return ",".join(["type='signal'", *(f"{key}='{value}'" for key, value in parts.items() if value is not None)])
