"""A Plasma session with the widget in it, to be looked at and used."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.desktop.daemon import bind_of
from tests.desktop.enclosure import Conversation, enclosed
from tests.desktop.plasma_root import plasma_root
from tests.support.bus import REPOSITORY, PrivateBus

ID = "org.gpuhandoff.plasma"
TITLE = "GPU Handoff"
POPUP = "456x464+824+288"
"""Where the tray opens what is in it, on the screen that plasma_inside makes."""
TABS = 30
_COMPLAINT = re.compile(r"^(?:warning|critical|fatal)\|")
_OURS = re.compile(rf"{re.escape(ID)}|\|org\.kde\.plasma\.workspace\.dbus\|")


class Plasma:
    """One session; what it does is in plasma_inside."""

    def __init__(self, conversation: Conversation, out: Path, pictures: Path) -> None:
        self._conversation = conversation
        self._out = out
        self._pictures = pictures

    async def start(self, **how: Any) -> None:
        """Start the shell with the widget in its tray."""
        await self._conversation.ask("start", widget="/widget", **how)

    async def open(self, title: str = TITLE) -> None:
        """Open the widget from the tray, where it is as soon as there is a daemon."""
        await self.press(f"^{title}$", role="button")

    async def press(self, pattern: str, *, role: str = "", about: str = "") -> None:
        """Press what has such a name, and such a description where `about` says so."""
        await self._conversation.ask("press", pattern=pattern, role=role, about=about)

    async def keys(self, *names: str) -> None:
        """Type."""
        await self._conversation.ask("keys", names=list(names))

    async def until(self, pattern: str) -> str:
        """Return a text that matches as soon as it is shown."""
        return str(await self._conversation.ask("until_shown", pattern=pattern))

    async def until_gone(self, pattern: str) -> None:
        """Return as soon as no such text is shown."""
        await self._conversation.ask("until_gone", pattern=pattern)

    async def tree(self) -> list[dict[str, Any]]:
        """Return everything that a screen reader finds."""
        found: list[dict[str, Any]] = await self._conversation.ask("tree")
        return found

    async def until_focused(self, pattern: str) -> None:
        """Return as soon as such a thing has the keyboard's focus."""
        await self._conversation.ask("until_focused", pattern=pattern)

    async def walk_to(self, pattern: str, *, about: str = "") -> None:
        """Press Tab until such a thing has the focus."""
        for _ in range(TABS):
            await self.keys("Tab")
            focused = [node for node in await self.tree() if node["focused"]]
            if any(re.search(pattern, one["name"]) and re.search(about, one["description"]) for one in focused):
                return
        raise AssertionError(f"{pattern} cannot be reached with Tab")

    async def memory(self) -> dict[str, int]:
        """Return the shell's memory in KiB."""
        found: dict[str, int] = await self._conversation.ask("memory")
        return found

    async def picture(self, name: str, *, crop: str = POPUP) -> Path:
        """Photograph the popup, or what `crop` says; empty for the whole screen."""
        await self._conversation.ask("picture", path=f"/out/{name}.png", crop=crop)
        return Path(shutil.copy(self._out / f"{name}.png", self._pictures / f"plasma-{name}.png"))

    def log(self) -> str:
        """Return all that was written to standard error inside."""
        return self._conversation.log()

    def complaints(self) -> list[str]:
        """Return warnings and errors that have to do with the widget."""
        return [line for line in self.log().splitlines() if _COMPLAINT.match(line) and _OURS.search(line)]


async def assembled(directory: Path) -> Path:
    """Return the widget's package as it is installed, made in a directory."""
    widget = directory / "widget"
    await asyncio.to_thread(subprocess.run, [str(REPOSITORY / "clients/plasma/assemble"), str(widget)], check=True)
    return widget


@asynccontextmanager
async def plasma(bus: PrivateBus, directory: Path, pictures: Path) -> AsyncIterator[Plasma]:
    """Have a session that has not been started yet."""
    widget, out = await assembled(directory), directory / "out"
    root = await asyncio.to_thread(plasma_root)
    out.mkdir()
    out.chmod(0o777)
    binds = (f"{REPOSITORY / 'tests/desktop'}:/desktop", f"{widget}:/widget", f"rw:{out}:/out", bind_of(bus))
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PATH": "/usr/bin:/bin:/usr/lib/qt6/bin"}
    program = ("python3", "/desktop/plasma_inside.py")
    log = directory / "plasma.log"
    async with enclosed(root, program, log=log, binds=binds, environment=environment) as conversation:
        yield Plasma(conversation, out, pictures)
