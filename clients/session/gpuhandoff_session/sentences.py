"""What people are told, in words. Pure: facts in, a notice out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

CANCEL, GO_ON = "cancel", "go-on"
"""Keys of what can be pressed."""
_LAST = 5
"""Seconds of a countdown that are shown one by one; those before, five at a time, so that no screen reader talks on."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification."""

    title: str
    body: str
    urgent: bool = False
    """It stays until something is done about it."""
    buttons: tuple[tuple[str, str], ...] = ()
    """Key and label of each."""


def short_name(name: str) -> str:
    """Return a card's name as people say it: "GeForce RTX 4070" of "NVIDIA AD104 [GeForce RTX 4070]"."""
    sold_as = re.search(r"\[([^\]]+)\]", name)
    return sold_as[1] if sold_as else name


Cards = Sequence[tuple[str, str]]
"""Cards, and the virtual machine that each goes to."""


def countdown(cards: Cards, programs: Sequence[str], more: int, left: float) -> Notice:
    """Return the warning, `left` seconds before the desktop is asked to end."""
    seconds = math.ceil(left)
    unit = "second" if seconds == 1 else "seconds"
    body = f"{_destinations(cards)}, and {'it shows' if len(cards) == 1 else 'they show'} this desktop."
    if programs:
        body += f" What ends: {listed(programs, more)}."
    body += " You are logged out; programs are asked to close, and may ask you what to save."
    return Notice(
        f"Your desktop ends in {seconds} {unit}", body, urgent=True, buttons=((CANCEL, "Cancel"), (GO_ON, "End it now"))
    )


def next_change(left: float) -> float:
    """Return in how many seconds a countdown that has `left` shows another number."""
    if left <= _LAST:
        return left - (math.ceil(left) - 1)
    return left - _LAST * (math.ceil(left / _LAST) - 1)


def leaving(cards: Cards) -> Notice:
    """Return what is shown while programs close."""
    body = f"Programs are closed, then {_destinations(cards)}."
    return Notice("Your desktop ends now", body, urgent=True, buttons=((CANCEL, "Cancel"),))


def too_late(card: str, vm: str) -> Notice:
    """Return what a person is told whose no has come too late: the desktop still ends, and should not do so unawares."""
    return Notice("It could not be cancelled any more", f"{card} goes to {_whom(vm)}, and your desktop ends.", urgent=True)


def obstructed(asking: Sequence[str]) -> Notice:
    """Return what is shown while programs keep the desktop from ending."""
    body = f"{listed(asking)}. Answer there, and the desktop ends; if you do not, it stays, and so does the card."
    return Notice("Something keeps your desktop from ending", body, urgent=True, buttons=((CANCEL, "Cancel"),))


def declined() -> str:
    """Return the reason of a person who has pressed Cancel."""
    return "it was cancelled in the countdown"


def called_off() -> str:
    """Return the reason of a person who has cancelled in the desktop's own dialog."""
    return "the desktop was told to stay"


def unanswered(asking: Sequence[str]) -> str:
    """Return the reason when programs have not closed in time."""
    if asking:
        return f"{listed(asking)}, and nobody has answered"[:200]
    return "programs do not close, perhaps they ask about unsaved changes, and nobody has answered"


def refused(why: str) -> str:
    """Return what our own objection was, to the person in whose name it was made."""
    return f"The handoff was refused: {why}. Nothing was changed."


def finished(card: str, vm: str, result: str, message: str) -> Notice:
    """Return how a handoff ended of which this desktop was warned, and which has not ended it."""
    match result:
        case "done":
            return Notice(f"{card} is with {_whom(vm)}", "Your desktop stayed.")
        case "cancelled":
            return Notice(f"{card} stays here", message or "Nothing was changed.")
        case "stuck":
            return Notice(f"{card} is stuck", message, urgent=True)
    return Notice(f"{_start(vm)} did not get {card}", message, urgent=True)


def returned(card: str, vm: str, seconds: float) -> Notice:
    """Return that everything went as it should."""
    return Notice(f"{card} is back", f"{_start(vm)} had it for {duration(seconds)}. The desktop had ended for that.")


def unused(card: str, vm: str, why: str) -> Notice:
    """Return that the virtual machine never took the card, for which the desktop had ended."""
    body = f"The desktop had ended for it, and {card} was there, but no virtual machine has opened it"
    body += " in the time that it had. " if why == "guest-missing" else ". "
    body += "The virtual machine's own log should say why; `gpuhandoff history` has the rest."
    return Notice(f"{_start(vm)} did not start", body, urgent=True)


def failed(card: str, vm: str, outcome: str, message: str) -> Notice:
    """Return that the handoff did not succeed, for which the desktop had ended."""
    if outcome == "stuck":
        return Notice(f"{card} is stuck", message, urgent=True)
    if outcome == "cancelled":
        return Notice(f"{_start(vm)} did not get {card}", f"It was cancelled when the desktop had ended already. {message}")
    body = f"The desktop had ended for it. {message}"
    return Notice(f"{_start(vm)} did not start: it did not get {card}", body, urgent=True)


def rebooted(card: str, vm: str) -> Notice:
    """Return that only a reboot brought the card back."""
    return Notice(f"{card} is back", f"The machine was restarted while {_whom(vm)} had it. Nothing of that is left.")


def not_back(card: str, vm: str, message: str) -> Notice:
    """Return that the way back failed."""
    return Notice(f"{card} is not back from {_whom(vm)} as it should be", message, urgent=True)


def listed(names: Sequence[str], more: int = 0) -> str:
    """Return names as a sentence has them."""
    parts = [*names, f"{more} more"] if more else list(names)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def duration(seconds: float) -> str:
    """Return a duration as people say it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, rest = divmod(minutes, 60)
    parts = [_count(hours, "hour"), _count(rest, "minute")]
    return " and ".join(part for part in parts if part)


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}" if number else ""


def _destinations(cards: Cards) -> str:
    """Return where cards go, without a full stop."""
    if len({vm for _, vm in cards}) == 1:
        return f"{listed([card for card, _ in cards])} {'goes' if len(cards) == 1 else 'go'} to {_whom(cards[0][1])}"
    return listed([f"{card} goes to {_whom(vm)}" for card, vm in cards])


def _whom(vm: str) -> str:
    return vm or "a virtual machine"


def _start(vm: str) -> str:
    return vm or "The virtual machine"
