"""Where in a TOML file a key is set: tomllib keeps no positions, and a person wants the line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Return the number of the line that sets the key at `path`, or of the nearest table around it.

    A search by eye, not a parser: a line of a multi-line value that looks like a key can mislead it.
    """
    wanted, found, depth = tuple(path), None, 0
    for number, here in _places(text):
        shared = here[: len(wanted)]
        if len(shared) > depth and wanted[: len(shared)] == shared:
            found, depth = number, len(shared)
    return found


def split_position(text: str, error: tomllib.TOMLDecodeError) -> tuple[str, int | None]:
    """Return a syntax error's reason and line; tomllib has both in one sentence."""
    sentence = str(error)
    position = _POSITION.search(sentence)
    if position is None:
        return sentence, None
    line = int(position[1]) if position[1] else text.count("\n") + 1
    return sentence[: position.start()], line


def _places(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Number the lines that name a table or a key, with the path that each names."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = _path(stripped) or table
            yield number, table
        elif "=" in stripped and not stripped.startswith("#"):
            yield number, (*table, *_path(f"{stripped.partition('=')[0]}= 0"))


def _path(line: str) -> tuple[str, ...]:
    """Return the path of the only key in one line of TOML; empty when it is none."""
    try:
        value = tomllib.loads(line)
    except ValueError:
        return ()
    path = []
    while isinstance(value, dict) and len(value) == 1:
        ((key, value),) = value.items()
        path.append(key)
    return tuple(path)
