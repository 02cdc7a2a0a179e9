"""Other people's values in our sentences: short, printable, never a terminal's orders."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 40
"""Characters of a value that a sentence repeats."""

_HUGE = 1 << 64


def quote(value: object) -> str:
    """Return a value as a sentence names it: text in quotes, lists and tables by their kind."""
    match value:
        case bool():
            words = str(value).lower()
        case int() if not -_HUGE < value < _HUGE:
            words = "a number of more than 64 bits"
        case int() | float():
            words = str(value)
        case list() | tuple():
            words = f"the list [{shorten(', '.join(quote(one) for one in value[:LONGEST]))}]"
        case dict():
            words = "a table"
        case _:
            words = f"'{shorten(str(value))}'"
    return words


def shorten(text: str) -> str:
    """Return the beginning of a text, without control characters."""
    beginning = "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])
    return beginning + ("…" if len(text) > LONGEST else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what to try instead of an unknown name: the one that was meant, or all there are."""
    import difflib  # noqa: PLC0415  (large, for what is rarely needed)

    names = list(known)
    near = difflib.get_close_matches(shorten(name), names, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}."
