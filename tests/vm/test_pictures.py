"""Three pictures of one display: the host, its guest's console on the same card, the host again. Kept as PNG files."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.vm.bench_host import BenchHost
from tests.vm.domains import GREEN, Guest

ROOT = Path(__file__).parents[2]
FADING = 60
"""Seconds within which the desktop has faded in."""
ALIKE = 0.95
"""How many pixels two pictures of one desktop share: its clock goes on."""
NAMES = ("1-host", "2-guest", "3-host-again")


def directory() -> Path:
    """Return where they go: GPUHANDOFF_PICTURES, else build/pictures."""
    given = os.environ.get("GPUHANDOFF_PICTURES")
    found = Path(given).absolute() if given else ROOT / "build" / "pictures"
    found.mkdir(parents=True, exist_ok=True)
    return found


def test_a_card_that_moved(libvirt: BenchHost) -> None:
    files = [directory() / f"{name}.png" for name in NAMES]
    for file in files:
        file.unlink(missing_ok=True)
    guest, shown = Guest(libvirt), []

    def look(file: Path) -> None:
        libvirt.machine.screenshot(file)
        shown.append(libvirt.machine.picture())

    look(files[0])
    guest.start()
    guest.wait_for("up")
    look(files[1])
    guest.virsh(f"shutdown {guest.name}")
    guest.wait_for_end()
    libvirt.wait_for_desktop()
    deadline = time.monotonic() + FADING
    while libvirt.machine.picture().likeness(shown[0]) < ALIKE and time.monotonic() < deadline:
        time.sleep(0.2)  # a screen sends no events
    look(files[2])

    assert [round(one.share(GREEN)) for one in shown] == [0, 1, 0]
    assert shown[1].likeness(shown[0]) < 0.1
    assert shown[2].likeness(shown[0]) > ALIKE
    assert [file.read_bytes()[:8] for file in files] == [b"\x89PNG\r\n\x1a\n"] * 3
