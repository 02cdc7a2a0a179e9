"""Reads the configuration files: gpuhandoff.toml, then conf.d/*.toml in lexical order; a later key wins."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuhandoff.config import values
from gpuhandoff.config.configuration import HOST_PARSERS, Configuration
from gpuhandoff.config.lines import line_of, split_position
from gpuhandoff.config.options import OPTIONS
from gpuhandoff.config.quote import nearest, quote, shorten

LARGEST = 1 << 20
"""Bytes of one file."""

_TABLES = ("host", "defaults", "gpu", "vm")
_MOVE_PARSERS: Mapping[str, values.Parser] = {key: kind.parse for key, kind in OPTIONS.items() if kind.configurable}


class ConfigurationError(Exception):
    """A file is wrong: which, in which line (None where that cannot be told), which key, what was expected, what came.

    `key` is empty when the file as a whole is wrong. The text says all of it in one sentence.
    """

    def __init__(self, file: Path, line: int | None, key: str, expected: str, found: str, sentence: str) -> None:
        super().__init__(f"{file}{f':{line}' if line else ''}: {sentence}")
        self.file = file
        self.line = line
        self.key = key
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class _Source:
    """One file: its place and its text, to point at."""

    file: Path
    text: str

    def wrong_value(self, path: tuple[str, ...], expected: str, value: object) -> ConfigurationError:
        """Return the error for a key whose value has the wrong form."""
        key = path[-1]
        where = f" in {_header(path[:-1])}" if path[:-1] else ""
        sentence = f"{shorten(key)}{where}: {expected} is expected, not {quote(value)}."
        return ConfigurationError(self.file, line_of(self.text, path), key, expected, quote(value), sentence)

    def wrong_key(self, path: tuple[str, ...], known: Iterable[str], kind: str = "key") -> ConfigurationError:
        """Return the error for a key that nobody knows."""
        key, names = path[-1], list(known)
        where = f"{_header(path[:-1])} has no {kind}" if path[:-1] else f"there is no {kind}"
        expected = f"one of {', '.join(names)}"
        sentence = f"{where} {quote(key)}. {nearest(key, names)}"
        return ConfigurationError(self.file, line_of(self.text, path), key, expected, quote(key), sentence)


def load(file: Path, drop_ins: Path) -> Configuration:
    """Return the configuration; files that do not exist say nothing. Raises ConfigurationError."""
    configuration = Configuration()
    for one in (file, *_drop_ins(drop_ins)):
        text = _read(one)
        if text is not None:
            configuration = _merge(configuration, _Source(one, text))
    return configuration


def _drop_ins(directory: Path) -> list[Path]:
    try:
        return sorted(one for one in directory.iterdir() if one.suffix == ".toml")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _wrong_file(directory, None, "a readable directory", str(error.strerror)) from error


def _read(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _wrong_file(file, None, "a readable file", str(error.strerror)) from error
    if len(data) > LARGEST:
        raise _wrong_file(file, None, f"a file of at most {LARGEST >> 20} MiB", "a larger one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong_file(file, line, "UTF-8 text", f"byte 0x{data[error.start]:02x}") from error


def _merge(configuration: Configuration, source: _Source) -> Configuration:
    document = _document(source)
    for name, table in document.items():
        if name not in _TABLES:
            raise source.wrong_key((name,), _TABLES, "table")
        if not isinstance(table, dict):
            raise source.wrong_value((name,), f"a table, as in [{name}],", table)
    return Configuration(
        replace(configuration.host, **_parse(source, ("host",), document.get("host", {}), HOST_PARSERS)),
        {**configuration.defaults, **_parse(source, ("defaults",), document.get("defaults", {}), _MOVE_PARSERS)},
        _sections(source, "gpu", document, configuration.gpus, values.gpu_address),
        _sections(source, "vm", document, configuration.vms, values.section_vm),
    )


def _document(source: _Source) -> dict[str, Any]:
    try:
        return tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        reason, line = split_position(source.text, error)
        raise _wrong_file(source.file, line, "TOML", reason) from error
    except (ValueError, RecursionError) as error:
        # A decimal number of thousands of digits, or lists in lists: tomllib lets Python's own errors through.
        raise _wrong_file(source.file, None, "TOML", "numbers or lists beyond all reason") from error


def _sections(
    source: _Source,
    table: str,
    document: Mapping[str, Any],
    before: Mapping[Any, Mapping[str, Any]],
    parse_name: Callable[[str], Any],
) -> dict[Any, Mapping[str, Any]]:
    """Merge the sections [gpu."…"] or [vm."…"] into those of earlier files."""
    merged = dict(before)
    for name, section in document.get(table, {}).items():
        path = (table, name)
        try:
            key = parse_name(name)
        except values.ExpectedError as error:
            raise source.wrong_value(path, str(error), name) from error
        if not isinstance(section, dict):
            example = "0000:01:00.0" if table == "gpu" else "win11"
            raise source.wrong_value(path, f'a section, as in [{table}."{example}"],', section)
        merged[key] = {**merged.get(key, {}), **_parse(source, path, section, _MOVE_PARSERS)}
    return merged


def _parse(
    source: _Source, path: tuple[str, ...], table: Mapping[str, Any], parsers: Mapping[str, values.Parser]
) -> dict[str, Any]:
    """Parse one table's values; the result has the names of the fields."""
    parsed: dict[str, Any] = {}
    for key, value in table.items():
        parse = parsers.get(key)
        if parse is None:
            raise source.wrong_key((*path, key), parsers)
        try:
            parsed[key.replace("-", "_")] = parse(value)
        except values.ExpectedError as error:
            raise source.wrong_value((*path, key), str(error), value) from error
    return parsed


def _header(path: tuple[str, ...]) -> str:
    """Return a table's name as it is written in a file."""
    return f'[{path[0]}."{shorten(path[1])}"]' if len(path) > 1 else f"[{path[0]}]"


def _wrong_file(file: Path, line: int | None, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(file, line, "", expected, found, f"{expected} is expected, not what is there: {found}.")
