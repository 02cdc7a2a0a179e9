"""What the GNOME Shell extension is made of, apart from the shell: its words and plans, and its talk with the real daemon.

The tests themselves are tests/gnome/test_*.js: the extension's own modules, in the language that they are written in.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.support.bus import private_bus

FOLDER = Path(__file__).parents[1] / "gnome"
PATIENCE = 60.0
_TEST = re.compile(r"^export (?:async )?function (test\w+)", re.MULTILINE)


def named_in(name: str) -> list[str]:
    """Return the tests of one file."""
    found = _TEST.findall((FOLDER / name).read_text(encoding="utf-8"))
    assert found, name
    return found


async def run(name: str, *only: str, **environment: str) -> None:
    """Run the tests of one file, or one of them, on a bus of their own; `environment` adds to that bus's."""
    with private_bus() as bus:
        process = await asyncio.create_subprocess_exec(
            *("gjs", "-m", str(FOLDER / "run.js"), str(FOLDER / name), *only),
            env=bus.environment()
            | {"LANGUAGE": "", "LC_ALL": "C.UTF-8", "GPUHANDOFF_SIMULATED": f"{sys.executable} -m gpuhandoff --simulate"}
            | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    passed = set(re.findall(r"^ok (\w+)$", out.decode(), re.MULTILINE))
    assert passed == set(only or named_in(name))
    # A promise whose failure nobody saw, an object used after its end: nothing of the kind, however well it went.
    assert not err.decode()


@pytest.mark.parametrize("name", ["test_card.js", "test_plan.js", "test_words.js"])
async def test_words(name: str) -> None:
    await run(name)


@pytest.mark.parametrize("test", named_in("test_daemon.js"))
async def test_daemon(test: str) -> None:
    await run("test_daemon.js", test)
