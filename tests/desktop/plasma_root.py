"""The Debian that Plasma is tried in."""

from __future__ import annotations

from pathlib import Path

from tests.desktop.root import built

SUITE = "forky"
"""The first one whose Plasma is 6.4 or newer, as the widget needs."""
PACKAGES = (
    *("dbus", "plasma-workspace", "plasma-desktop", "kwin-wayland", "kpackagetool6", "breeze-icon-theme"),
    *("xvfb", "xdotool", "imagemagick", "fonts-dejavu-core", "fonts-droid-fallback", "locales", "procps"),
    *("python3-minimal", "python3-gi", "gir1.2-atspi-2.0", "at-spi2-core"),
    *("qt6-declarative-dev-tools", "qml6-module-qttest"),
)


def plasma_root() -> Path:
    """Return it, made now unless it was made before."""
    return built(SUITE, PACKAGES)


if __name__ == "__main__":
    print(plasma_root())  # noqa: T201
