"""The options of a move: one table for the bus and for the configuration files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpuhandoff.config import values
from gpuhandoff.config.quote import nearest, quote
from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.messages import Variant
from gpuhandoff.model.request import Options

__all__ = ["OPTIONS", "RECLAIM_OPTIONS", "OptionKind", "parse_options", "quote"]


@dataclass(frozen=True, slots=True)
class OptionKind:
    """One option: its type on the bus, its parser, and whether configuration files may set it."""

    signature: str
    parse: values.Parser
    configurable: bool = True

    def field(self, key: str) -> str:
        """Return the name of the option's field in `Options`."""
        return key.replace("-", "_")


OPTIONS: dict[str, OptionKind] = {
    "wait": OptionKind("b", values.truth, configurable=False),
    "vm": OptionKind("s", values.vm_name, configurable=False),
    "stop-display": OptionKind("b", values.truth),
    "holders": OptionKind("s", values.holder_policy),
    "cpus": OptionKind("s", values.cpus),
    "memory": OptionKind("t", values.memory),
    "hugepages": OptionKind("s", values.hugepages),
    "quiet": OptionKind("b", values.truth),
    "accept-risk": OptionKind("b", values.truth),
    "bars": OptionKind("s", values.bars),
    "timeout": OptionKind("u", values.seconds),
    "guest-timeout": OptionKind("u", values.seconds),
    "lease": OptionKind("b", values.truth, configurable=False),
    "dry-run": OptionKind("b", values.truth, configurable=False),
    "interactive": OptionKind("b", values.truth, configurable=False),
}
RECLAIM_OPTIONS = frozenset({"wait", "dry-run", "interactive", "holders"})
"""No timeout: what undoes is never stopped half-way."""

_TYPES = {"b": "a boolean (b)", "s": "a string (s)", "t": "a 64-bit number (t)", "u": "a 32-bit number (u)"}


def parse_options(
    given: Mapping[str, Variant], defaults: Options, *, allowed: frozenset[str] = frozenset(OPTIONS)
) -> Options:
    """Return `defaults` with what a caller gave; raises InvalidArgsError with the key, what is expected and what came."""
    parsed: dict[str, Any] = {}
    for key, variant in given.items():
        kind = OPTIONS.get(key) if key in allowed else None
        if kind is None:
            raise InvalidArgsError(f"{quote(key)}: there is no such option here. {nearest(key, sorted(allowed))}")
        if variant.signature != kind.signature:
            raise InvalidArgsError(f"{key}: {_TYPES[kind.signature]} is expected, not type {quote(variant.signature)}.")
        try:
            parsed[kind.field(key)] = kind.parse(variant.value)
        except values.ExpectedError as error:
            raise InvalidArgsError(f"{key}: {error} is expected, not {quote(variant.value)}.") from error
    return replace(defaults, **parsed)
