"""Inside the enclosed Debian: a Plasma session on a screen that nobody sees, and hands and eyes for it.

Names and labels come from the accessibility tree, as a screen reader has them; there are no coordinates in any test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gi
from answering import answer
from languages import speak

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi  # noqa: E402

ID = "org.gpuhandoff.plasma"
SIZE = "1280x800"
SETTLE = 300.0
LOOK = 0.3

_processes: dict[str, subprocess.Popen[bytes]] = {}


def start(*, widget: str, language: str = "", theme: str = "") -> None:
    """Start the session with the widget at a path in its tray."""
    home = Path.home()
    shutil.copytree(widget, home / ".local/share/plasma/plasmoids" / ID)
    settings = home / ".config/kdeglobals"
    settings.parent.mkdir()
    settings.write_text("[KDE]\nAnimationDurationFactor=0\n", encoding="ascii")
    _set_environment()
    if language:
        speak(language)
        _have_catalog(language, Path(widget), home)
    _run("dbus-daemon", "--session", "--address=unix:path=/run/user/bus", "--nofork", "--nopidfile")
    _until(lambda: Path("/run/user/bus").exists(), "a session bus")
    read, write = os.pipe()
    screen = ("-screen", "0", f"{SIZE}x24", "-nolisten", "tcp")
    _run("Xvfb", "-displayfd", str(write), *screen, pass_fds=(write,))
    os.environ["DISPLAY"] = f":{os.read(read, 16).decode().strip()}"
    width, _, height = SIZE.partition("x")
    kwin = ("--width", width, "--height", height, "--socket", "wayland-9", "--no-lockscreen", "--no-global-shortcuts")
    _run("kwin_wayland", "--x11-display", os.environ["DISPLAY"], *kwin)
    _until(lambda: Path("/run/user/wayland-9").exists(), "a compositor")
    os.environ |= {"WAYLAND_DISPLAY": "wayland-9", "QT_QPA_PLATFORM": "wayland", "XDG_SESSION_TYPE": "wayland"}
    handed_on = ("WAYLAND_DISPLAY", "DISPLAY", "QT_QPA_PLATFORM", "XDG_RUNTIME_DIR", "HOME", "LANG", "LANGUAGE", "LOCPATH")
    subprocess.run(["dbus-update-activation-environment", *handed_on], check=True, stdout=sys.stderr)
    _run("/usr/libexec/at-spi-bus-launcher", "--launch-immediately")
    if theme:
        subprocess.run(["plasma-apply-lookandfeel", "-a", theme], check=True, stdout=sys.stderr)
    _run("kded6")
    _run("plasmashell", "--no-respawn")
    _until(lambda: any(True for _ in _application()), "plasmashell")


def _have_catalog(language: str, widget: Path, home: Path) -> None:
    """Give plasmashell a catalog: KDE speaks no language that the program has none of. The root is without its own."""
    (catalog,) = (widget / "contents/locale" / language / "LC_MESSAGES").glob("*.mo")
    target = home / ".local/share/locale" / language / "LC_MESSAGES"
    target.mkdir(parents=True)
    shutil.copy(catalog, target / "plasmashell.mo")


def _set_environment() -> None:
    os.environ |= {
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/bus",
        "XDG_CURRENT_DESKTOP": "KDE",
        "KDE_FULL_SESSION": "true",
        "KDE_SESSION_VERSION": "6",
        "QT_QPA_PLATFORMTHEME": "kde",  # otherwise icons of actions are missing
        "QT_QUICK_BACKEND": "software",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "QT_FORCE_STDERR_LOGGING": "1",
        "QT_MESSAGE_PATTERN": "%{type}|%{category}|%{file}:%{line}|%{message}",
        "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
    }


def _run(*command: str, pass_fds: tuple[int, ...] = ()) -> None:
    name = Path(command[0]).name
    _processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=pass_fds)


def _until(condition: Callable[[], object], what: str, seconds: float = SETTLE) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come up in {seconds:.0f} s")
        time.sleep(LOOK)
    return found


# Eyes


def _application() -> Iterator[Any]:
    desktop = Atspi.get_desktop(0)
    for index in range(desktop.get_child_count()):
        child = desktop.get_child_at_index(index)
        if child is not None and child.get_name() == "plasmashell":
            yield child


def _walk(node: Any) -> Iterator[Any]:
    """Give everything that shows; what does not, closed windows first of all, is not asked about what is in it."""
    for index in range(node.get_child_count()):
        child = node.get_child_at_index(index)
        if child is not None and _showing(child):
            yield child
            yield from _walk(child)


def _showing(node: Any) -> bool:
    states = node.get_state_set()
    return bool(states.contains(Atspi.StateType.SHOWING) and states.contains(Atspi.StateType.VISIBLE))


def _nodes() -> list[Any]:
    for application in _application():
        application.clear_cache()
        return list(_walk(application))
    return []


def tree() -> list[dict[str, Any]]:
    """Return what a screen reader finds: role, name, description, whether it has focus or can have it."""
    found = []
    for node in _nodes():
        states = node.get_state_set()
        found.append(
            {
                "role": node.get_role_name(),
                "name": node.get_name() or "",
                "description": node.get_description() or "",
                "focusable": bool(states.contains(Atspi.StateType.FOCUSABLE)),
                "focused": bool(states.contains(Atspi.StateType.FOCUSED)),
                "enabled": bool(states.contains(Atspi.StateType.ENABLED)),
                "checked": bool(states.contains(Atspi.StateType.CHECKED)),
            }
        )
    return found


def until_shown(*, pattern: str, seconds: float = SETTLE) -> str:
    """Return the first name or description that matches, as soon as there is one."""

    def found() -> str:
        names = [text for node in _nodes() for text in (node.get_name(), node.get_description()) if text]
        return next((name for name in names if re.search(pattern, name)), "")

    return str(_until(found, f"{pattern!r} on the screen", seconds))


def until_gone(*, pattern: str, seconds: float = SETTLE) -> None:
    """Return as soon as nothing has a name that matches."""
    _until(lambda: not [1 for node in _nodes() if re.search(pattern, node.get_name() or "")], f"no {pattern!r}", seconds)


def until_focused(*, pattern: str, seconds: float = SETTLE) -> None:
    """Return as soon as what has the keyboard's focus has a name that matches."""

    def focused() -> bool:
        having = [node for node in _nodes() if node.get_state_set().contains(Atspi.StateType.FOCUSED)]
        return any(re.search(pattern, node.get_name() or "") for node in having)

    _until(focused, f"the focus on {pattern!r}", seconds)


def picture(*, path: str, crop: str = "") -> None:
    """Photograph the screen, or a part of it, when it has come to rest: it lags behind what the accessibility tree says."""
    part = ("-crop", crop, "+repage") if crop else ()
    seen = b""

    def at_rest() -> bool:
        nonlocal seen
        before = seen
        time.sleep(LOOK)
        subprocess.run(["import", "-window", "root", *part, "+dither", "-colors", "256", f"png8:{path}"], check=True)
        seen = subprocess.run(["identify", "-format", "%#", path], check=True, capture_output=True).stdout
        return seen == before

    _until(at_rest, "a screen at rest")


# Hands


def press(*, pattern: str, role: str = "", about: str = "") -> None:
    """Press the first thing whose name matches, and whose description matches `about`, by its accessible action."""

    def fits(node: Any) -> bool:
        texts = re.search(pattern, node.get_name() or "") and re.search(about, node.get_description() or "")
        return bool(texts and role in {"", node.get_role_name()} and node.get_n_actions())

    def button() -> Any:
        return next((one for one in _nodes() if fits(one)), None)

    node = _until(button, f"something to press named {pattern!r}")
    for index in range(node.get_n_actions()):
        if node.get_action_name(index) in {"Press", "Toggle"}:
            node.do_action(index)
            return
    raise LookupError(f"{node.get_name()!r} cannot be pressed")


def keys(*, names: list[str]) -> None:
    """Type, as xdotool names keys."""
    subprocess.run(["xdotool", "key", "--delay", "60", *names], check=True, stdout=sys.stderr)


def memory() -> dict[str, int]:
    """Return plasmashell's memory in KiB."""
    rollup = Path(f"/proc/{_processes['plasmashell'].pid}/smaps_rollup").read_text(encoding="ascii")
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.MULTILINE))
    return {"rss": int(fields["Rss"]), "private": int(fields["Private_Dirty"])}


if __name__ == "__main__":
    verbs = (start, tree, until_shown, until_gone, until_focused, picture, press, keys, memory)
    answer({verb.__name__: verb for verb in verbs})
