"""What the GNOME Shell extension is made of, apart from the shell: its words and plans, and its talk with the real daemon.

The tests themselves are tests/gnome/test_*.js: the extension's own modules, in the language that they are written in.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bus import private_bus

FOLDER = Path(__file__).parents[1] / "gnome"
CLIENT = Path(__file__).parents[2] / "clients/gnome-shell"
TEMPLATE = "gpuhandoff-gnome-shell.pot"
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


def assembled(directory: Path) -> Path:
    """Return the extension as it is installed."""
    subprocess.run([str(CLIENT / "assemble"), str(directory)], check=True)
    return directory


@pytest.mark.parametrize("language", ["de", "zh_CN"])
async def test_translation(language: str, tmp_path: Path) -> None:
    locale = assembled(tmp_path) / "locale"
    await run("test_translation.js", LANGUAGE=language, GPUHANDOFF_LOCALE=str(locale))


@pytest.mark.parametrize("language", ["de", "zh_CN"])
def test_every_text_is_translated(language: str, tmp_path: Path) -> None:
    """Of the sources as they are now, not of the template that somebody last made of them."""
    folder = tmp_path / "gnome-shell"
    shutil.copytree(CLIENT, folder)
    subprocess.run([str(folder / "po/update")], check=True)
    assert (folder / "po" / TEMPLATE).read_text() == (CLIENT / "po" / TEMPLATE).read_text()
    counted = subprocess.run(
        ["msgfmt", "--check-format", "--statistics", "--output-file=/dev/null", str(folder / f"po/{language}.po")],
        env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.fullmatch(r"\d+ translated messages\.\n", counted.stderr), counted.stderr


def test_the_package_has_every_file(tmp_path: Path) -> None:
    """A file in a new folder would be missing where it is installed."""
    found = {path.relative_to(tmp_path).as_posix() for path in assembled(tmp_path).rglob("*") if path.is_file()}
    sources = {path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob("*") if path.is_file()}
    assert {name for name in sources if not name.startswith("po/")} - {"assemble"} == {
        name for name in found if not name.startswith("locale/")
    }
    assert "locale/de/LC_MESSAGES/gpuhandoff-gnome-shell.mo" in found


def test_pure_modules_stay_pure() -> None:
    """What the tests above reach without a shell must not need one."""
    allowed = {"logic": {"gettext"}, "bus": {"gi://Gio", "gi://GLib"}}
    for room, others in allowed.items():
        for path in (CLIENT / room).glob("*.js"):
            named = set(re.findall(r"^import .* from '([^']+)'", path.read_text(encoding="utf-8"), re.MULTILINE))
            assert {one for one in named if not one.startswith((".", ".."))} <= others, path
            assert room == "bus" or not any("../" in one for one in named), path
