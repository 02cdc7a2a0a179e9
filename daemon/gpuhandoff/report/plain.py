"""Our frozen values as plain JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.cpus import format_cpus


def plain(value: Any) -> Any:
    """Return a value as JSON has it: fields by their names, sets sorted, CPU sets in list format, the rest as its text."""
    match value:
        case None | bool() | int() | float():
            return value
        case PciAddress() | str():
            return str(value)
        case frozenset() if value and all(isinstance(one, int) for one in value):
            return format_cpus(value)
        case frozenset():
            return sorted(str(one) for one in value)
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)
