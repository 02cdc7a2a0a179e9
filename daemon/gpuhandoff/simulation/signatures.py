"""Checks values against D-Bus signatures, so that a test fails where the real bus would refuse a message."""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuhandoff.messages import Variant

_INTEGERS = {
    "y": (0, 0xFF),
    "n": (-0x8000, 0x7FFF),
    "q": (0, 0xFFFF),
    "i": (-0x80000000, 0x7FFFFFFF),
    "u": (0, 0xFFFFFFFF),
    "x": (-(1 << 63), (1 << 63) - 1),
    "t": (0, (1 << 64) - 1),
    "h": (0, 0xFFFFFFFF),
}
_BASIC: dict[str, type] = {"b": bool, "d": float, "s": str, "g": str}


@cache
def split(signature: str) -> tuple[str, ...]:
    """Split a signature into its complete types."""
    types = []
    while signature:
        length = _length(signature)
        types.append(signature[:length])
        signature = signature[length:]
    return tuple(types)


def check(signature: str, body: tuple[Any, ...]) -> None:
    """Raise TypeError unless `body` fits."""
    types = split(signature)
    if len(types) != len(body):
        raise TypeError(f"signature {signature!r} has {len(types)} values, the body {len(body)}")
    for kind, value in zip(types, body, strict=True):
        _check_one(kind, value)


def _check_one(kind: str, value: Any) -> None:
    if type(value) is _BASIC.get(kind):  # most values, most of the time
        return
    fits = _fits_container(kind, value) if kind[0] in "va(" else _fits_basic(kind, value)
    if not fits:
        raise TypeError(f"{value!r} is no {kind!r}")


def _fits_basic(kind: str, value: Any) -> bool:
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    if kind == "o":
        return isinstance(value, str) and value.startswith("/")
    return isinstance(value, _BASIC[kind])


def _fits_container(kind: str, value: Any) -> bool:
    """Tell whether the container itself is right; what is in it raises by itself."""
    if kind == "v":
        if isinstance(value, Variant):
            _check_one(value.signature, value.value)
        return isinstance(value, Variant)
    if kind == "ay":
        return isinstance(value, bytes)
    if kind.startswith("a{"):
        key_kind, value_kind = split(kind[2:-1])
        for key, one in value.items() if isinstance(value, dict) else ():
            _check_one(key_kind, key)
            _check_one(value_kind, one)
        return isinstance(value, dict)
    if not isinstance(value, list | tuple) or isinstance(value, Variant):
        return False
    if kind[0] == "(":
        check(kind[1:-1], tuple(value))
    else:
        for one in value:
            _check_one(kind[1:], one)
    return True


def _length(signature: str) -> int:
    if signature[0] == "a":
        return 1 + _length(signature[1:])
    if signature[0] in "({":
        depth = 0
        for place, code in enumerate(signature):
            depth += (code in "({") - (code in ")}")
            if depth == 0:
                return place + 1
    return 1
