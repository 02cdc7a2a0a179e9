"""Reads the configuration files: gpuhandoff.toml, then conf.d/*.toml in lexical order; a later key wins."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuhandoff.config import values
from gpuhandoff.config.configuration import HOST_PARSERS, Configuration
from gpuhandoff.config.options import OPTIONS, quote
from gpuhandoff.model.address import PciAddress

_TABLES = ("host", "defaults", "gpu", "vm")
LARGEST = 1 << 20
"""Bytes of one file."""


class ConfigurationError(Exception):
    """A file is wrong: which, where, which key, what was expected."""

    def __init__(self, file: Path, line: int | None, what: str) -> None:
        super().__init__(f"{file}{f':{line}' if line else ''}: {what}")
        self.file = file
        self.line = line


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    text: str

    def error(self, key: str, what: str) -> ConfigurationError:
        """Return an error that points at the first line which sets `key`."""
        pattern = re.compile(rf"\s*(?:\[.*)?[\"']?{re.escape(key)}[\"']?\s*(?:=|\.|\])")
        line = next((number for number, line in enumerate(self.text.splitlines(), 1) if pattern.match(line)), None)
        return ConfigurationError(self.path, line, what)


def load(file: Path, drop_ins: Path) -> Configuration:
    """Return the configuration; files that do not exist say nothing. Raises ConfigurationError."""
    configuration = Configuration()
    for path in (file, *sorted(drop_ins.glob("*.toml"))):
        text = _read(path)
        if text is not None:
            configuration = _merge(configuration, _File(path, text))
    return configuration


def _read(path: Path) -> str | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(path, None, f"cannot be read: {error.strerror}.") from error
    if len(data) > LARGEST:
        raise ConfigurationError(path, None, f"is larger than {LARGEST >> 20} MiB.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, None, "is not UTF-8 text.") from error


def _merge(configuration: Configuration, file: _File) -> Configuration:
    try:
        document = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise ConfigurationError(file.path, int(found[1]) if found else None, f"is not TOML: {error}.") from error
    except RecursionError as error:
        raise ConfigurationError(file.path, None, "is nested too deeply.") from error
    for name, table in document.items():
        if name not in _TABLES:
            raise file.error(name, f"{quote(name)} is no table of this file.{_nearest(name, _TABLES)}")
        if not isinstance(table, dict):
            raise file.error(name, f"{name}: a table is expected, as in [{name}].")
    host = replace(configuration.host, **_parse(file, "host", document.get("host", {}), HOST_PARSERS))
    kinds = {key: kind.parse for key, kind in OPTIONS.items() if kind.configurable}
    defaults = {**configuration.defaults, **_parse(file, "defaults", document.get("defaults", {}), kinds)}
    gpus = _sections(file, "gpu", document, configuration.gpus, kinds, _address)
    vms = _sections(file, "vm", document, configuration.vms, kinds, values.vm_name)
    return Configuration(host, defaults, gpus, vms)


def _sections(
    file: _File,
    table: str,
    document: Mapping[str, Any],
    before: Mapping[Any, Mapping[str, Any]],
    kinds: Mapping[str, values.Parser],
    parse_name: Callable[[str], Any],
) -> dict[Any, Mapping[str, Any]]:
    """Merge [gpu."…"] or [vm."…"] sections."""
    merged = dict(before)
    for name, section in document.get(table, {}).items():
        try:
            key = parse_name(name)
        except ValueError as error:
            raise file.error(name, f'[{table}."{name[:40]}"]: {error} is expected.') from error
        if not isinstance(section, dict):
            raise file.error(name, f'{table}.{name[:40]}: a section is expected, as in [{table}."{name[:40]}"].')
        merged[key] = {**merged.get(key, {}), **_parse(file, f'{table}."{name[:40]}"', section, kinds)}
    return merged


def _parse(file: _File, where: str, table: Mapping[str, Any], kinds: Mapping[str, values.Parser]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for key, value in table.items():
        parse = kinds.get(key)
        if parse is None:
            raise file.error(key, f"[{where}] has no key {quote(key)}.{_nearest(key, kinds)}")
        try:
            parsed[key.replace("-", "_")] = parse(value)
        except values.ExpectedError as error:
            raise file.error(key, f"{key} in [{where}]: {error} is expected, not {quote(value)}.") from error
    return parsed


def _address(text: str) -> PciAddress:
    try:
        return PciAddress.parse(text)
    except ValueError as error:
        raise values.ExpectedError("a PCI address such as 0000:01:00.0") from error


def _nearest(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else f" Known: {', '.join(known)}."
