"""Configuration files in a directory of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhandoff.config import Configuration, ConfigurationError, load


def read(etc: Path, text: str | bytes | None = None, **drop_ins: str) -> Configuration:
    file = etc / "gpuhandoff.toml"
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    for name, content in drop_ins.items():
        (etc / "conf.d" / f"{name}.toml").write_text(content, encoding="utf-8")
    return load(file, etc / "conf.d")


def refusal(etc: Path, text: str | bytes) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(etc, text)
    return caught.value
