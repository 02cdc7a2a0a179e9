"""Checks values against D-Bus signatures, so that a test fails where the real bus would refuse a message."""

from __future__ import annotations

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


def split(signature: str) -> list[str]:
    """Split a signature into its complete types."""
    types = []
    while signature:
        length = _length(signature)
        types.append(signature[:length])
        signature = signature[length:]
    return types


def check(signature: str, body: tuple[Any, ...]) -> None:
    """Raise TypeError unless `body` fits."""
    types = split(signature)
    if len(types) != len(body):
        raise TypeError(f"signature {signature!r} has {len(types)} values, the body {len(body)}")
    for kind, value in zip(types, body, strict=True):
        _check_one(kind, value)


def _check_one(kind: str, value: Any) -> None:  # noqa: PLR0912
    match kind[0]:
        case "b":
            fits = isinstance(value, bool)
        case "d":
            fits = isinstance(value, float)
        case "s" | "g":
            fits = isinstance(value, str)
        case "o":
            fits = isinstance(value, str) and value.startswith("/")
        case "v":
            fits = isinstance(value, Variant)
            if fits:
                _check_one(value.signature, value.value)
        case "(":
            fits = isinstance(value, list | tuple) and not isinstance(value, Variant)
            if fits:
                check(kind[1:-1], tuple(value))
        case "a" if kind[1] == "{":
            fits = isinstance(value, dict)
            if fits:
                key_kind, value_kind = split(kind[2:-1])
                for key, one in value.items():
                    _check_one(key_kind, key)
                    _check_one(value_kind, one)
        case "a":
            fits = isinstance(value, bytes) if kind == "ay" else isinstance(value, list | tuple)
            if fits and kind != "ay":
                for one in value:
                    _check_one(kind[1:], one)
        case code:
            low, high = _INTEGERS[code]
            fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        raise TypeError(f"{value!r} is no {kind!r}")


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
