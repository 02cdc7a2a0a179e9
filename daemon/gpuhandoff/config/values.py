"""Parsers of single values, shared by the configuration files and the bus: each returns a value or says what it expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.cpus import MAXIMUM, parse_cpus
from gpuhandoff.model.request import HolderPolicy, Hugepages
from gpuhandoff.model.roles import is_vital_unit

Parser = Callable[[Any], Any]

LONGEST_JOB = 86400
"""Seconds."""
NAME_LENGTH = 128
MOST_MEMORY = 1 << 50
"""Bytes; more than any machine has."""

CPU_LIST_LENGTH = 1024
"""Characters; 8192 CPUs a range, a longer list would keep the daemon busy."""

_CPU_LIST = re.compile(r"(?: *[0-9]{1,4}(?:-[0-9]{1,4})? *(?:,|$))*")
_SIZE = re.compile(r"([0-9]{1,15}) ?([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_BAR = re.compile(r"([0-5])=([0-9]{1,6})([MG])(?:iB|B)?", re.IGNORECASE)
_BARS = 6
_LARGEST_BAR = 1 << 43
"""Bytes: the largest size that a card can be set to (PCI Express, Resizable BAR capability)."""
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|scope|slice|socket)")
_PROCESS_NAME_LENGTH = 15
"""The kernel cuts longer ones off (TASK_COMM_LEN)."""
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


class ExpectedError(ValueError):
    """A value has the wrong form; the text says what is expected, as in "true or false"."""


def truth(value: Any) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise ExpectedError("true or false")
    return value


def seconds(value: Any) -> int:
    """Whole seconds, at most a day."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LONGEST_JOB:
        raise ExpectedError(f"a number of seconds from 0 to {LONGEST_JOB}")
    return value


def vm_name(value: Any) -> str:
    """The name of a virtual machine."""
    if not isinstance(value, str) or len(value) > NAME_LENGTH or not value.isprintable():
        raise ExpectedError(f"a name of at most {NAME_LENGTH} printable characters")
    return value


def section_vm(value: Any) -> str:
    """The name in [vm."…"]: a handoff without a virtual machine has no section."""
    name = vm_name(value)
    if not name:
        raise ExpectedError("the name of a virtual machine")
    return name


def gpu_address(value: Any) -> PciAddress:
    """The address in [gpu."…"]."""
    try:
        return PciAddress.parse(value)
    except ValueError as error:
        raise ExpectedError("a PCI address such as 0000:01:00.0") from error


def holder_policy(value: Any) -> HolderPolicy:
    """What to do with holders."""
    return HolderPolicy(_choice(HolderPolicy, value))


def hugepages(value: Any) -> Hugepages:
    """How memory is backed."""
    return Hugepages(_choice(Hugepages, value))


def cpus(value: Any) -> frozenset[int]:
    """CPUs in list format."""
    expected = f"a list of CPUs from 0 to {MAXIMUM}, such as 0-3,8,"
    if not isinstance(value, str) or len(value) > CPU_LIST_LENGTH or _CPU_LIST.fullmatch(value) is None:
        raise ExpectedError(expected)
    try:
        return parse_cpus(value)
    except ValueError as error:
        raise ExpectedError(expected) from error


def memory(value: Any) -> int:
    """Bytes, as a number or as "16 GiB"."""
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())) is not None:
        value = int(found[1]) << _SHIFT[found[2].upper()]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_MEMORY:
        raise ExpectedError('a size such as "16 GiB", or a number of bytes')
    return value


def bars(value: Any) -> tuple[tuple[int, int], ...]:
    """Memory windows with their sizes, or `leave`."""
    expected = 'leave, or memory windows with sizes that are powers of two from 1M on, such as "0=256M,2=8M"'
    if value == "leave":
        return ()
    if not isinstance(value, str) or not (parts := value.replace(" ", "").split(",")) or len(parts) > _BARS:
        raise ExpectedError(expected)
    found = {}
    for part in parts:
        words = _BAR.fullmatch(part)
        size = int(words[2]) << _SHIFT[words[3].upper()] if words is not None else 0
        if words is None or words[1] in found or size.bit_count() != 1 or not 1 << 20 <= size <= _LARGEST_BAR:
            raise ExpectedError(expected)
        found[words[1]] = (int(words[1]), size)
    return tuple(sorted(found.values()))


def unit_names(value: Any) -> tuple[str, ...]:
    """Names of systemd units that may be stopped or frozen."""
    expected = 'a list of unit names such as ["ollama.service"]'
    if not isinstance(value, list | tuple):
        raise ExpectedError(expected)
    for name in value:
        if not isinstance(name, str) or _UNIT_NAME.fullmatch(name) is None:
            raise ExpectedError(expected)
    if vital := [name for name in value if is_vital_unit(name)]:
        raise ExpectedError(f"a list without {' and '.join(vital)}, which the machine, or the way back, cannot do without,")
    return tuple(value)


def process_names(value: Any) -> tuple[str, ...]:
    """Names of processes, as the kernel knows them."""
    expected = f'a list of process names of at most {_PROCESS_NAME_LENGTH} characters such as ["baloo_file"]'
    if not isinstance(value, list | tuple):
        raise ExpectedError(expected)
    for name in value:
        if not isinstance(name, str) or not 0 < len(name) <= _PROCESS_NAME_LENGTH or not name.isprintable():
            raise ExpectedError(expected)
    return tuple(value)


def console_policy(value: Any) -> str:
    """Whether text consoles are detached."""
    if value not in {"auto", "leave"}:
        raise ExpectedError("auto or leave")
    return str(value)


def governor(value: Any) -> str:
    """A cpufreq governor, or empty."""
    if not isinstance(value, str) or re.fullmatch(r"[a-z]{0,16}", value) is None:
        raise ExpectedError('a CPU frequency governor such as "performance", or ""')
    return value


def _choice(kind: type[StrEnum], value: Any) -> str:
    if not isinstance(value, str) or value not in set(kind):
        raise ExpectedError(" or ".join(kind))
    return value
