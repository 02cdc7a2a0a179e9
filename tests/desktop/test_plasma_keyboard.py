"""Without a mouse, and without eyes: everything can be reached, and everything has a name."""

from __future__ import annotations

from pathlib import Path

from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.plasma import plasma
from tests.support.bus import PrivateBus

CARD = "RTX 4070"
GPU = "0000:01:00.0"


async def test_a_handoff_by_keyboard_alone(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    await daemon.start("igpu-dgpu")
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open()
        await shell.until(f"{CARD}.*: With this computer$")
        await shell.walk_to("^Hand over…$", about=CARD)
        await shell.keys("space")
        await shell.until("^Before you hand it over$")
        await shell.until_focused("^Not now$")  # a hasty Return changes nothing
        await shell.keys("Escape")
        await shell.until_gone("^Before you hand it over$")
        await shell.until_focused("^Hand over…$")
        await shell.keys("space")
        await shell.until("^Before you hand it over$")
        await shell.keys("Tab", "space")
        await daemon.until(GPU, "detached")
        await shell.until(f"{CARD}.*: Ready for a virtual machine$")
        assert shell.complaints() == []


async def test_everything_that_can_be_pressed_has_a_name(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    await daemon.start("igpu-dgpu")
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open()
        await shell.until(f"{CARD}.*: With this computer$")
        tree = await shell.tree()
        handing = [node for node in tree if node["name"] == "Hand over…" and node["role"] == "button"]
        assert len(handing) == 2
        assert len({node["description"] for node in handing}) == 2  # which card each is for
        assert all(node["focusable"] for node in handing)
        assert [node["name"] for node in tree if node["role"] == "panel" and CARD in node["name"]]
