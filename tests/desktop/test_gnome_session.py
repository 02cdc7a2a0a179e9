"""gpuhandoff-session beside a real GNOME Shell: what a person sees before their desktop ends, and that Cancel is heard."""

from __future__ import annotations

from pathlib import Path

from gpuhandoff.simulation.snapshot import differences
from tests.desktop.daemon import SimulatedDaemon
from tests.desktop.gnome_shell import gnome_shell
from tests.support.bus import PrivateBus

GPU = "0000:01:00.0"


async def test_a_person_is_warned_and_cancels(
    system_bus: PrivateBus, daemon: SimulatedDaemon, tmp_path: Path, pictures: Path
) -> None:
    await daemon.start("single-nvidia")
    before = await daemon.snapshot()
    async with gnome_shell(system_bus, tmp_path, pictures) as shell:
        await shell.start()
        await shell.ask("accompany")
        job = await daemon.move("Handoff", GPU, stop_display=True, vm="win11")
        await shell.until_shown(r"^Your desktop ends in \d+ seconds$")
        await shell.until_shown("^GeForce RTX 4070 goes to win11, and it shows this desktop. What ends: Firefox")
        await shell.picture("countdown")
        await shell.press("Cancel")
        await shell.until_shown("^GeForce RTX 4070 stays here$")
        assert await daemon.result(job) == "cancelled"
        assert await daemon.state(GPU) == "host"
        assert differences(before, await daemon.snapshot()) == []
        assert shell.complaints() == []
