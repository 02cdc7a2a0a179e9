"""What an extension that runs for weeks must not do: complain, grow, or show what is no longer so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.gnome_shell import gnome_shell
from tests.support.bus import PrivateBus

GPU = "0000:01:00.0"
CARD = "GeForce RTX 4070"
CHANGES = int(os.environ.get("GPUHANDOFF_TEST_CHANGES", "100"))
GROWTH = 32 << 10
"""KiB that the whole shell may grow by in a thousand changes: it collects its garbage when it likes."""


async def test_many_changes(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path, tell: Callable[[str], None]
) -> None:
    await daemon.start("igpu-dgpu")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open_menu()
        await shell.until_shown(f"^{CARD}$")
        await daemon.there_and_back(GPU)
        before = await shell.ask("memory")
        changes = 0
        while changes < CHANGES:
            changes += await daemon.there_and_back(GPU)
        await shell.until_shown("^With this computer$")
        after = await shell.ask("memory")
        grown = {name: after[name] - before[name] for name in before}
        sizes = f"{after['rss']} KiB resident ({grown['rss']:+}), {grown['private']:+} KiB private"
        tell(f"gnome-shell after {changes} changes: {sizes}")
        assert shell.complaints() == []
        assert grown["private"] < GROWTH
