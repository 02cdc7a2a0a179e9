"""A little of `./run fuzz` in every run."""

from __future__ import annotations

import pytest

from tests.support.fuzz import TARGETS, feed

FEW = {"dispatch": 12, "sysfs": 25}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(name: str, caplog: pytest.LogCaptureFixture) -> None:
    feed(name, FEW.get(name, 200))
