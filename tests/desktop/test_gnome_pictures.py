"""Every state of the extension, as a real GNOME Shell shows it; pictures for README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.gnome_root import SUITES
from tests.desktop.gnome_shell import gnome_shell
from tests.support.bus import PrivateBus

GPU = "0000:01:00.0"
CARD = "GeForce RTX 4070"
ALICE = 1000
LATE = "/snd_hda_intel/unbind"
DARK = {"org.gnome.desktop.interface": {"color-scheme": "prefer-dark"}}


async def test_a_second_card_there_and_back(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open_menu()
        await shell.until_shown("^The service is not running$")
        assert "Not running" in await shell.texts()
        await shell.picture("absent")

        await daemon.start("igpu-dgpu")
        await shell.until_shown("^With this computer$")
        await shell.until_gone("^The service is not running$")
        await shell.until_shown("programs? uses? it$")  # who has the processor's graphics
        await shell.picture("idle")

        await shell.press("Hand Over…")
        await shell.until_shown("^Your desktop stays[.]")
        await daemon.simulate("Hold", "s", LATE)
        await shell.press("Hand Over")
        await shell.open_menu()
        await shell.until_shown(r"^Unload the driver \([0-9] of [0-9]\)$")
        assert "Going to a virtual machine" in await shell.texts()
        await shell.picture("progress")
        await daemon.simulate("Heal")
        await shell.until_shown("^Ready for a virtual machine$")

        await shell.press("Take Back…")
        await shell.until_shown("^Take the card from vfio-pci$")
        await shell.press("Take Back")
        await daemon.until(GPU, "host")

        await daemon.move("Handoff", GPU, vm="win11")
        await daemon.until(GPU, "detached")
        await daemon.simulate("StartGuest", "s", GPU)
        await shell.open_menu()
        await shell.until_shown("^With “win11”$")
        await shell.picture("guest")
        await shell.press("Take Back…")
        await shell.until_shown("^A virtual machine still runs on it$")
        await shell.press("End the Machine…")
        await shell.until_shown("^End the Machine and Take Back$")
        await shell.press("Cancel")
        await daemon.simulate("StopGuest", "s", GPU)
        assert shell.complaints() == []


async def test_what_goes_wrong(system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path) -> None:
    await daemon.start("igpu-dgpu")
    await daemon.simulate("Open", "sus", "blender", ALICE, "/dev/nvidia0")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open_menu()
        await shell.until_shown("^Blender")
        await shell.press("Hand Over…")
        await shell.until_shown("^The card is in use$")
        await shell.picture("refused")
        await shell.press("End Them…")
        await shell.until_shown("^This program is ended: Blender")
        await shell.press("Cancel")
        await daemon.simulate("Heal")

        await daemon.simulate("Refuse", "s", LATE)
        await shell.open_menu()
        await shell.press("Hand Over…")
        await shell.press("Hand Over")
        # Whoever has closed the menu is told; whoever opens it finds it at the card.
        await shell.until_shown(f"^{CARD}: It did not work, and everything was undone$")
        await shell.open_menu()
        await shell.until_shown("^It did not work, and everything was undone$")
        await shell.until_gone(f"^{CARD}: It did not work, and everything was undone$")
        await shell.picture("error")
        await shell.press("Dismiss the Message")
        await shell.open_menu()
        await shell.until_gone("^It did not work, and everything was undone$")
        await daemon.simulate("Heal")

        await daemon.simulate("OpenBefore", "suss", "arecord", ALICE, "/dev/snd/controlC1", LATE)
        await shell.press("Hand Over…")
        await shell.press("Hand Over")
        await daemon.until(GPU, "stuck")
        await shell.open_menu()
        await shell.until_shown(r"arecord \(pid [0-9]+\)")
        assert "Stuck" in await shell.texts()
        await shell.picture("stuck")
        await daemon.simulate("Heal")
        await daemon.until(GPU, "host")
        assert shell.complaints() == []


@pytest.mark.parametrize("suite", SUITES)
async def test_the_only_card(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path, suite: str
) -> None:
    """What is lost is said before the desktop ends; in every shell that there is, and dark, for a change."""
    await daemon.start("single-nvidia")
    async with gnome_shell(system_bus, tmp_path, pictures, suite) as shell:
        await shell.start(settings=DARK)
        await shell.open_menu()
        await shell.press("Hand Over…")
        await shell.until_shown("^The desktop of alice ends[.] Save your work first[.]")
        await shell.until_shown("^These programs end: Firefox$")
        await shell.until_shown("^Unsaved documents: ")
        await shell.until_shown("^You will be asked for a password[.]$")
        await shell.picture("plan" if suite == SUITES[0] else f"plan-{suite}")
        await shell.press("End Desktop and Hand Over")
        await daemon.until(GPU, "detached")
        await shell.open_menu()
        await shell.until_shown("^Ready for a virtual machine$")
        assert shell.complaints() == []


@pytest.mark.parametrize(
    ("language", "here", "button", "lead", "confirm"),
    [
        ("de", "Bei diesem Rechner", "Übergeben …", "^Ihre Sitzung bleibt[.]", "Übergeben"),
        ("zh_CN", "在本机", "交出…", "^您的桌面会保留。", "交出"),
    ],
)
async def test_in_another_language(
    system_bus: PrivateBus,
    daemon: SimulatedDaemon,
    tmp_path: Path,
    pictures: Path,
    language: str,
    here: str,
    button: str,
    lead: str,
    confirm: str,
) -> None:
    await daemon.start("igpu-dgpu")
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start(language=language)
        await shell.open_menu()
        await shell.until_shown(f"^{here}$")
        await shell.press(button)
        await shell.until_shown(lead)
        await shell.until_shown(f"^{confirm}$")
        await shell.picture(language)
        assert shell.complaints() == []
