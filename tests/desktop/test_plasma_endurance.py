"""What a widget that runs for weeks must not do: complain, grow, or show what is no longer so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.plasma import plasma
from tests.support.bus import PrivateBus

GPU = "0000:01:00.0"
CARD = "RTX 4070"
CHANGES = int(os.environ.get("GPUHANDOFF_TEST_CHANGES", "100"))
GROWTH = 32 << 10
"""KiB that the whole shell may grow by in a thousand changes: caches, and what its other widgets do."""


async def test_many_changes(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path, tell: Callable[[str], None]
) -> None:
    await daemon.start("igpu-dgpu")
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open()
        await shell.until(f"{CARD}.*: With this computer$")
        await daemon.there_and_back(GPU)
        before = await shell.memory()
        changes = 0
        while changes < CHANGES:
            changes += await daemon.there_and_back(GPU)
        await shell.until(f"{CARD}.*: With this computer$")
        after = await shell.memory()
        grown = {name: after[name] - before[name] for name in before}
        sizes = f"{after['rss']} KiB resident ({grown['rss']:+}), {grown['private']:+} KiB private"
        tell(f"plasmashell after {changes} changes: {sizes}")
        assert shell.complaints() == []
        assert grown["private"] < GROWTH


async def test_a_daemon_that_comes_and_goes(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.until("^Show hidden icons$")
        await daemon.start("twin")  # which brings it out from behind the arrow
        await shell.open()
        for address in ("01:00.0", "02:00.0"):
            await shell.until(rf"^GeForce RTX 3060 .*[(]{address}[)]: With this computer$")
        await daemon.stop()
        for scenario, card in (("igpu-dgpu", CARD), ("single-amd", "6800"), ("igpu-dgpu", CARD)):
            await daemon.start(scenario)
            await shell.until(f"{card}.*: With this computer$")
            await daemon.stop()
            await shell.until("^It is the service that lends graphics cards")
            await shell.until_gone(f"{card}.*: With this computer$")
        await shell.press("^Start$")
        await shell.until("^gpuhandoff could not be started$")
        await daemon.start("single-nvidia")
        await shell.press("^Hand over…$", about=CARD)
        await shell.until("^Before you hand it over$")
        await daemon.stop()
        await shell.until("^gpuhandoff is not running$")
        await daemon.start("single-nvidia")
        await shell.until(f"{CARD}.*: With this computer$")
        await shell.until_gone("^Before you hand it over$")  # the plan was another daemon's
        assert shell.complaints() == []
