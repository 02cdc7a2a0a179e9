"""Every state of the widget, as a real Plasma shows it and a screen reader tells it; pictures for README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.plasma import plasma
from tests.support.bus import PrivateBus

GPU = "0000:01:00.0"
CARD = "RTX 4070"
ALICE = 1000
LATE = "/snd_hda_intel/unbind"
DARK = "org.kde.breezedark.desktop"


async def test_a_second_card_there_and_back(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await daemon.start("igpu-dgpu")
        await shell.start()
        await shell.open()
        await shell.until(f"{CARD}.*: With this computer$")
        await daemon.stop()
        await shell.until("^It is the service that lends graphics cards")
        await shell.until("^Start$")
        await shell.picture("absent")

        await daemon.start("igpu-dgpu")
        await shell.until(f"{CARD}.*: With this computer$")
        await shell.until_gone("^gpuhandoff is not running$")
        await shell.until(r"^the desktop \(KWin\), in your session$")  # has the other card
        await shell.picture("idle")

        await shell.press("^Hand over…$", about=CARD)
        await shell.until("^Before you hand it over$")
        await daemon.simulate("Hold", "s", LATE)
        await shell.press("^Hand over$")
        await shell.until(f"{CARD}.*: Going to a virtual machine…$")
        await shell.until("^Step [0-9]+ of [0-9]+: Unloading the driver$")
        await shell.picture("progress")
        await daemon.simulate("Heal")
        await shell.until(f"{CARD}.*: Ready for a virtual machine$")

        await shell.press("^Take back…$", about=CARD)
        await shell.until("^Everything that the handover changed is undone.$")
        await shell.press("^Take back$")
        await shell.until(f"{CARD}.*: With this computer$")

        await daemon.move("Handoff", GPU, vm="win11")
        await daemon.until(GPU, "detached")
        await shell.until(f"{CARD}.*: Ready for “win11”$")
        await daemon.simulate("StartGuest", "s", GPU)
        await shell.until(f"{CARD}.*: With “win11”$")
        await shell.picture("guest")
        await shell.press("^Take back…$", about=CARD)
        await shell.until("^Somebody uses the graphics card$")
        await shell.until("^End the virtual machine…$")
        await daemon.simulate("StopGuest", "s", GPU)
        assert shell.complaints() == []


async def test_what_goes_wrong(system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path) -> None:
    await daemon.start("igpu-dgpu")
    await daemon.simulate("Open", "sus", "blender", ALICE, "/dev/nvidia0")
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.open()
        await shell.until("^[Bb]lender")
        await shell.press("^Hand over…$", about=CARD)
        await shell.until("^Somebody uses the graphics card$")
        await shell.picture("error")
        await shell.press("^End these programs…$")
        await shell.until("^Will be ended: .*[Bb]lender")
        await shell.until("^End programs and hand over$")
        await shell.press("^Not now$")
        await daemon.simulate("Heal")

        await daemon.simulate("Refuse", "s", LATE)
        await shell.press("^Hand over…$", about=CARD)
        await shell.press("^Hand over$")
        await shell.until("^It failed, and everything is as it was$")
        await shell.press("^Close$")
        await shell.until_gone("^It failed, and everything is as it was$")
        await daemon.simulate("Heal")

        await daemon.simulate("OpenBefore", "suss", "arecord", ALICE, "/dev/snd/controlC1", LATE)
        await shell.press("^Hand over…$", about=CARD)
        await shell.press("^Hand over$")
        await shell.until(f"{CARD}.*: Stuck$")
        await shell.until(r"arecord \(pid [0-9]+\)")
        await shell.picture("stuck")
        await daemon.simulate("Heal")
        await shell.until(f"{CARD}.*: With this computer$")
        assert shell.complaints() == []


async def test_the_only_card(system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path) -> None:
    """What is lost is said before the desktop ends; in the dark theme, for a change."""
    await daemon.start("single-nvidia")
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start(theme=DARK)
        await shell.open()
        await shell.press("^Hand over…$", about=CARD)
        await shell.until("^Desktop: It ends: this card shows it to alice.$")
        await shell.until("^Ends: Firefox$")
        await shell.until("^Lost: unsaved documents")
        await shell.until("^It was never done on this computer")
        await shell.until("^End the desktop and hand over$")
        await shell.picture("plan")
        await shell.press("^[0-9]+ steps$")
        await shell.until("^1[.] ")  # the others are below the window's edge
        assert shell.complaints() == []


@pytest.mark.parametrize(
    ("language", "title", "here", "button", "before", "button_then"),
    [
        ("de", "GPU-Übergabe", "Bei diesem Rechner", "Übergeben …", "Bevor Sie sie übergeben", "Übergeben"),
        ("zh_CN", "GPU 交接", "在本机", "交出…", "交出之前", "交出"),
    ],
)
async def test_in_another_language(
    system_bus: PrivateBus,
    daemon: SimulatedDaemon,
    tmp_path: Path,
    pictures: Path,
    language: str,
    title: str,
    here: str,
    button: str,
    before: str,
    button_then: str,
) -> None:
    await daemon.start("igpu-dgpu")
    async with plasma(system_bus, tmp_path, pictures) as shell:
        await shell.start(language=language)
        await shell.open(title)
        await shell.until(f"{CARD}.*{here}$")
        await shell.press(f"^{button}$", about=CARD)
        await shell.until(f"^{before}$")
        await shell.until(f"^{button_then}$")
        await shell.picture(language)
        assert shell.complaints() == []
