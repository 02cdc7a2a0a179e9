"""Every state of the widget, as a real Plasma shows it and a screen reader tells it; pictures for README.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.plasma import plasma
from tests.support.bus import PrivateBus

GPU = "0000:01:00.0"
CARD = "RTX 4070"


async def test_there_and_back(system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path) -> None:
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open()
        await shell.until("^gpuhandoff is not running$")
        await shell.picture("absent")

        await daemon.start("igpu-dgpu")
        await shell.until(f"{CARD}.*: With this computer$")
        await shell.until_gone("^gpuhandoff is not running$")
        await shell.picture("idle")

        await shell.press("^Hand over…$", about=CARD)
        await shell.until("^Before you hand it over$")
        await shell.picture("plan")

        await daemon.simulate("Hold", "s", "/nvidia/unbind")
        await daemon.simulate("Hold", "s", "drivers_probe")
        await shell.press("^Hand over$")
        await shell.until("^Step [0-9]+ of [0-9]+: ")
        await asyncio.sleep(1)
        await shell.picture("progress")
        await daemon.simulate("Heal")
        await daemon.until(GPU, "detached")
        await shell.until(f"{CARD}.*: Ready for a virtual machine$")

        await daemon.simulate("StartGuest", "s", GPU)
        await shell.until(f"{CARD}.*: With a virtual machine: ")
        await shell.picture("guest-unnamed")
        assert shell.complaints() == []
