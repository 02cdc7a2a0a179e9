"""A real GNOME Shell with the extension, and what a test does with it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dbus_next

from tests.desktop.daemon import bind_of
from tests.desktop.enclosure import Conversation, enclosed
from tests.desktop.gnome_root import SUITES, gnome_root
from tests.support.bus import REPOSITORY, PrivateBus

HERE = Path(__file__).parent
UUID = "gpuhandoff@gpuhandoff.org"
ACTIVE, INACTIVE = 1, 2
LOOK = 0.1
SETTLE = 400.0
_DRAWN = """
new Promise(resolve => {
    const handler = global.stage.connect('after-paint', () => {
        global.stage.disconnect(handler);
        resolve(true);
    });
    global.stage.queue_redraw();
})
"""

_LOUD = re.compile(r"^\(gnome-shell:\d+\): (.+)-(?:CRITICAL|WARNING|ERROR) \*\*: .*$", re.MULTILINE)
_OTHERS = re.compile(
    r"There is no colord server available|ActUserManager: user \(null\) has no username|Unknown experimental feature"
    r"|Type GITypeInfo of property Clutter\.\S+ does not match"
)
"""What a shell says of a Debian without a login manager and without colours, and of its own library, whoever is in it."""


class Shell:
    """The shell as somebody in front of it has it."""

    def __init__(self, conversation: Conversation, out: Path, pictures: Path) -> None:
        self.conversation = conversation
        self._out = out
        self._pictures = pictures

    async def start(self, language: str = "", settings: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Start it and wait until the extension runs."""
        await self.ask("start", extension="/extension", language=language, settings=settings or {}, patience=4 * SETTLE)
        state = await self.ask("extension_state", uuid=UUID)
        assert state == {"state": ACTIVE, "error": ""}, state
        await self.evaluate((HERE / "gnome_shell.js").read_text(encoding="utf-8"))

    async def ask(self, what: str, *, patience: float = SETTLE, **arguments: Any) -> Any:
        """Ask the program inside: see gnome_inside."""
        return await self.conversation.ask(what, patience=patience, **arguments)

    async def evaluate(self, script: str) -> Any:
        """Run JavaScript in the shell."""
        return await self.ask("evaluate", script=script)

    async def open_menu(self) -> None:
        """Open the quick settings with the menu of the cards."""
        await self.evaluate("seen.open(); true")

    async def close_menu(self) -> None:
        """Close the quick settings."""
        await self.evaluate("seen.close(); true")

    async def texts(self) -> list[str]:
        """Return every text on the monitor."""
        return [str(text) for text in await self.evaluate("seen.texts()")]

    async def until_shown(self, pattern: str) -> str:
        """Return the first text that matches, as soon as there is one."""
        return str(await self.ask("until_shown", pattern=pattern, patience=2 * SETTLE))

    async def until_gone(self, pattern: str) -> None:
        """Return as soon as no text matches."""
        await self.ask("until_gone", pattern=pattern, patience=2 * SETTLE)

    async def press(self, text: str) -> None:
        """Press what has this text."""
        await self.until_shown(f"^{re.escape(text)}$")
        assert await self.evaluate(f"seen.press({json.dumps(text)})"), f"{text} cannot be pressed"

    async def key(self, *names: str) -> None:
        """Type, as Clutter names keys."""
        for name in names:
            await self.evaluate(f"seen.key({json.dumps(name)})")
            await asyncio.sleep(LOOK)

    async def picture(self, name: str) -> None:
        """Photograph the monitor; what was to move has moved, as animations are off."""
        await self.evaluate(_DRAWN)
        await self.ask("picture", path=f"/out/{name}.png")
        shutil.copy(self._out / f"{name}.png", self._pictures / f"gnome-{name}.png")

    def complaints(self) -> list[str]:
        """Return the warnings and errors in the shell's log, but for those that have nothing to do with us."""
        return complaints(self.conversation.log())


def complaints(log: str) -> list[str]:
    """Return the warnings and errors of a log."""
    return [found[0] for found in _LOUD.finditer(log) if not _OTHERS.search(found[0])]


async def assembled(directory: Path) -> Path:
    """Return the extension as it is installed, made in a directory."""
    assemble = REPOSITORY / "clients/gnome-shell/assemble"
    await asyncio.to_thread(subprocess.run, [str(assemble), str(directory / UUID)], check=True)
    return directory / UUID


@asynccontextmanager
async def gnome_shell(bus: PrivateBus, directory: Path, pictures: Path, suite: str = SUITES[0]) -> AsyncIterator[Shell]:
    """Have a session that has not been started yet."""
    extension, out = await assembled(directory), directory / "out"
    root = await asyncio.to_thread(gnome_root, suite)
    out.mkdir()
    out.chmod(0o777)
    library = Path(dbus_next.__file__).parent
    binds = (
        *(f"{HERE}:/desktop", f"{extension}:/extension", f"rw:{out}:/out", bind_of(bus)),
        *(f"{REPOSITORY}/clients/session:/session", f"{REPOSITORY}/daemon:/daemon", f"{library}:/library/dbus_next"),
    )
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
    program = ("python3", "/desktop/gnome_inside.py")
    log = directory / "gnome-shell.log"
    async with enclosed(root, program, log=log, binds=binds, environment=environment) as conversation:
        yield Shell(conversation, out, pictures)
