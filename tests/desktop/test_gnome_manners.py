"""The extension as a guest of the shell: the keyboard, screen readers, coming and going, and nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gpuhandoff.service.bus import connect
from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.gnome_shell import ACTIVE, INACTIVE, UUID, Shell, gnome_shell
from tests.support.bus import PrivateBus

GPU = "0000:01:00.0"
CARD = "GeForce RTX 4070"
TABS = 40
CYCLES = 10
DBUS, DBUS_PATH, STATS = "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats"
COLLECT = """
(async () => {
    const {default: System} = await import('system');
    for (let i = 0; i < 4; i++) {
        System.gc();
        await new Promise(resolve => imports.gi.GLib.timeout_add(300, 200, () => { resolve(); return false; }));
    }
    return (globalThis._kept ?? []).filter(kept => kept.deref()).length;
})()
"""
"""Collects garbage, and tells how many of the toggles that were there are still alive."""


async def test_everything_can_be_done_with_the_keyboard(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    await daemon.start("igpu-dgpu")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.evaluate("Main.panel.statusArea.quickSettings.menu.open(0); seen.toggle.grab_key_focus(); true")
        await shell.key("space")  # on the toggle itself: it opens the menu, and moves nothing
        await shell.until_shown(f"^{CARD}$")
        assert await daemon.state(GPU) == "host"
        await _walk(shell, "Down", f"Hand Over… {CARD}")
        await shell.key("Return")
        await shell.until_shown("^Your desktop stays[.]")
        await shell.key("Escape")
        await shell.until_gone("^Your desktop stays[.]")
        await shell.open_menu()
        await shell.press("Hand Over…")
        await shell.until_shown("^Your desktop stays[.]")
        await _walk(shell, "Tab", "Hand Over")
        await shell.key("Return")
        await daemon.until(GPU, "detached")
        assert shell.complaints() == []


async def test_return_does_not_end_a_desktop(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    await daemon.start("single-nvidia")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open_menu()
        await shell.press("Hand Over…")
        await shell.until_shown("^End Desktop and Hand Over$")
        await shell.key("Return")
        await shell.until_gone("^End Desktop and Hand Over$")  # whatever had the focus was Cancel
        assert await daemon.state(GPU) == "host"


async def test_everything_has_a_name_for_a_screen_reader(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    await daemon.start("igpu-dgpu")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open_menu()
        await shell.until_shown("^No program uses it$")
        spoken = [one["name"] for one in await shell.evaluate("seen.spoken()")]
        assert any(name.startswith(f"{CARD}. With this computer. Driver nvidia") for name in spoken), spoken
        assert f"Hand Over… {CARD}" in spoken
        glance = await shell.evaluate("seen.toggle.accessible_name")
        assert f"{CARD}: With this computer" in glance
        await shell.press("Hand Over…")
        await shell.until_shown("^Your desktop stays[.]")
        spoken = [one["name"] for one in await shell.evaluate("seen.spoken()")]
        assert {"Cancel", "Hand Over"} <= set(spoken), spoken
        assert any(name.startswith("Your desktop stays.") for name in spoken)
        assert "1. Keep the machine awake" in spoken
        assert not [text for text in await shell.evaluate("seen.cut()") if text in {"GPU", "Here", CARD}]


async def test_a_daemon_that_comes_and_goes(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open_menu()
        await shell.press("Start the Service")  # which this bus cannot do: why is said
        await shell.open_menu()
        await shell.until_shown("systemctl status gpuhandoffd")
        await daemon.start("twin")
        for address in ("01:00.0", "02:00.0"):
            await shell.until_shown(rf"^GeForce RTX 3060 .*[(]{address}[)]$")
        await daemon.stop()
        await shell.until_shown("^The service is not running$")
        for scenario, card in (("igpu-dgpu", CARD), ("single-amd", "Radeon RX 6800"), ("igpu-dgpu", CARD)):
            await daemon.start(scenario)
            await shell.until_shown(f"^{card}")
            await shell.until_gone("^The service is not running$")
            await daemon.stop()
            await shell.until_shown("^The service is not running$")
            await shell.until_gone(f"^{card}")
        await daemon.start("igpu-dgpu")
        await shell.press("Hand Over…")
        await shell.until_shown("^Your desktop stays[.]")
        await daemon.stop()
        await shell.until_gone("^Your desktop stays[.]")  # the plan was another daemon's
        assert shell.complaints() == []


async def test_nothing_is_left_behind(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    await daemon.start("igpu-dgpu")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open_menu()
        await shell.until_shown(f"^{CARD}$")
        await shell.close_menu()
        with_it = await shell.evaluate("seen.children()")
        assert await _rules(system_bus) > 0
        for _ in range(CYCLES):
            await shell.evaluate("(globalThis._kept ??= []).push(new WeakRef(seen.toggle)); true")
            await _switch(shell, on=False)
            await _switch(shell, on=True)
        # As fast as it goes, without waiting for anything to be finished: what comes late must find nobody.
        for _ in range(CYCLES):
            await shell.ask("switch", uuid=UUID, on=False)
            await shell.ask("switch", uuid=UUID, on=True)
        await shell.open_menu()
        await shell.until_shown(f"^{CARD}$")
        await shell.press("Hand Over…")
        await shell.until_shown("^Your desktop stays[.]")
        await _switch(shell, on=False)  # with a dialog open
        await shell.until_gone("^Your desktop stays[.]")
        assert await shell.evaluate("seen.children()") == with_it - 1
        assert await shell.evaluate(COLLECT) == 0
        assert await _rules(system_bus) == 0
        assert shell.complaints() == []
        assert await shell.ask("stop") == 0


async def test_a_locked_screen(system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path) -> None:
    """The shell takes the extension away while nobody may use it, and brings it back."""
    await daemon.start("igpu-dgpu")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.evaluate("Main.sessionMode.pushMode('unlock-dialog'); true")
        assert (await shell.ask("extension_state", uuid=UUID))["state"] == INACTIVE
        await shell.evaluate("Main.sessionMode.popMode('unlock-dialog'); true")
        assert (await shell.ask("extension_state", uuid=UUID))["state"] == ACTIVE
        await shell.open_menu()
        await shell.until_shown(f"^{CARD}$")
        assert shell.complaints() == []


async def _switch(shell: Shell, *, on: bool) -> None:
    await shell.ask("switch", uuid=UUID, on=on)
    found: dict[str, Any] = await shell.ask("extension_state", uuid=UUID)
    assert found == {"state": ACTIVE if on else INACTIVE, "error": ""}


async def _walk(shell: Shell, key: str, name: str) -> None:
    """Press a key until what has this name has the focus."""
    passed = []
    for _ in range(TABS):
        await shell.key(key)
        passed.append(await shell.evaluate("seen.focused()"))
        if passed[-1] == name:
            return
    raise AssertionError(f"{name} cannot be reached with {key}: {passed}")


async def _rules(bus: PrivateBus) -> int:
    """Return how many match rules somebody has on the system bus for what the extension follows."""
    connection = await connect(bus.address)
    try:
        (rules,) = await asyncio.wait_for(connection.call(DBUS, DBUS_PATH, STATS, "GetAllMatchRules"), 30)
    finally:
        await connection.close()
    return sum("arg0='org.gpuhandoff" in rule for of_one in rules.values() for rule in of_one)
