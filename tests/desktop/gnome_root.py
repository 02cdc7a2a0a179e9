"""The Debians that GNOME Shell is tried in."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.desktop.root import built

SUITES = ("trixie", "forky")
"""With GNOME Shell 48 and 50; the first one is where pictures are taken."""
PACKAGES = (
    *("gnome-shell", "dbus-daemon", "dbus-bin", "python3-gi", "libgl1-mesa-dri", "libglib2.0-bin", "locales"),
    *("adwaita-icon-theme", "fonts-cantarell", "fonts-dejavu-core", "fonts-droid-fallback"),
)


def gnome_root(suite: str) -> Path:
    """Return the one of a suite, made now unless it was made before."""
    return built(suite, PACKAGES)


if __name__ == "__main__":
    for name in sys.argv[1:] or SUITES:
        print(gnome_root(name))  # noqa: T201
