"""What a desktop should still be told of what happened before it began: from the daemon's history. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuhandoff_session import sentences
from gpuhandoff_session.sentences import Notice

DESKTOP = "stop-display"
"""The step that ends a desktop: a move that has taken it, or tried, has cost somebody theirs."""

Moves = Sequence[Mapping[str, Any]]
"""As the method History returns them: newest first."""


@dataclass(frozen=True, slots=True)
class Told:
    """Up to which move everything has been said, by its beginning (microseconds since the epoch)."""

    since: int = 0
    """Of cards that are not named."""
    cards: Mapping[str, int] | None = None
    """By PCI address."""

    def of(self, card: str) -> int:
        """Return it for one card."""
        return max(self.since, (self.cards or {}).get(card, 0))


def aftermath(moves: Moves, told: Told) -> tuple[tuple[Notice, ...], Told]:
    """Return what is to be said, of each card about the latest handoff for which a desktop ended, and what is said then.

    What is under way, there or back, and a card that is still away are told when that has come to its end.
    """
    notices: list[Notice] = []
    cards = dict(told.cards or {})
    seen: set[str] = set()
    for index, move in enumerate(moves):
        card = move["gpu"]
        if move["operation"] != "handoff" or move["outcome"] == "refused" or card in seen:
            continue
        seen.add(card)
        back = [one for one in reversed(moves[:index]) if one["gpu"] == card and one["operation"] == "reclaim"]
        if move["began"] <= told.of(card) or "running" in {one["outcome"] for one in (move, *back)}:
            continue
        notice = _of(move, [one for one in back if one["outcome"] != "refused"])
        if notice is None:
            continue
        cards[card] = move["began"]
        if any(step[0] == DESKTOP for step in move["steps"]):
            notices.append(notice)
    return tuple(notices), Told(told.since, cards)


def all_told(moves: Moves) -> Told:
    """Return that nothing of this is to be said: to a desktop that has never been there to hear it."""
    return Told(max((move["began"] for move in moves), default=0))


def _of(move: Mapping[str, Any], back: Moves) -> Notice | None:
    """Return what to say of one handoff and its way back (oldest first); None while the card is away."""
    card, vm = sentences.short_name(move["name"]), move["vm"]
    if move["outcome"] != "done":
        return sentences.failed(card, vm, move["outcome"], move["message"])
    if move["back"] == "reboot":
        return sentences.rebooted(card, vm)
    if not back:
        return None
    if back[-1]["outcome"] != "done":
        return sentences.not_back(card, vm, back[-1]["message"])
    if not move["guests"]:
        return sentences.unused(card, vm, back[0]["why"])
    return sentences.returned(card, vm, (back[0]["began"] - move["began"]) / 1e6 - move["seconds"])
