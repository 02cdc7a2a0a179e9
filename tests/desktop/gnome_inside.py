"""Inside the enclosed Debian: a GNOME Shell on a monitor that nobody sees, and hands and eyes for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from answering import answer
from gi.repository import Gio, GLib
from languages import speak

BUS = "unix:path=/run/user/bus"
SIZE = "1024x768"
SETTLE = 400.0
LOOK = 0.1
BUS_ITSELF = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
HIDE_UNSAFE_MODE = """
(() => {
    const sign = Main.panel.statusArea.quickSettings._unsafeMode?._indicator;
    sign?.hide();
    return Boolean(sign);
})()
"""
SHELL = ("org.gnome.Shell", "/org/gnome/Shell", "org.gnome.Shell")
_EXTENSION = "Main.extensionManager.lookup('{}')"
SCREENSHOT = ("org.gnome.Shell.Screenshot", "/org/gnome/Shell/Screenshot", "org.gnome.Shell.Screenshot")
SETTINGS = {
    "org.gnome.shell": {"welcome-dialog-last-shown-version": "9999"},
    "org.gnome.desktop.interface": {"enable-animations": "false", "font-name": "Cantarell 11"},
    # A plain colour makes small pictures.
    "org.gnome.desktop.background": {"picture-options": "none", "primary-color": "#30506e", "color-shading-type": "solid"},
}

_processes: dict[str, subprocess.Popen[bytes]] = {}
_connections: list[Gio.DBusConnection] = []


def start(*, extension: str, language: str = "", settings: dict[str, dict[str, str]] | None = None) -> None:
    """Start the shell with the extension at a path, and return when it has nothing more to do."""
    home = Path.home()
    uuid = str(json.loads(Path(extension, "metadata.json").read_text(encoding="utf-8"))["uuid"])
    folder = home / ".local/share/gnome-shell"
    shutil.copytree(extension, folder / "extensions" / uuid)
    (folder / "lock-warning-shown").touch()  # there is no display manager that could lock: no need to say so
    os.environ |= {
        "DBUS_SESSION_BUS_ADDRESS": BUS,
        "XDG_SESSION_TYPE": "wayland",
        "XDG_CURRENT_DESKTOP": "GNOME",
        "NO_AT_BRIDGE": "1",
    }
    if language:
        speak(language)
    _run("dbus-daemon", "--session", f"--address={BUS}", "--nofork", "--nopidfile")
    _until(lambda: Path("/run/user/bus").exists(), "a session bus")
    for schema, keys in {**SETTINGS, **(settings or {})}.items():
        for key, value in keys.items():
            subprocess.run(["gsettings", "set", schema, key, value], check=True, stdout=sys.stderr)
    enabled = f"['{uuid}']"
    subprocess.run(["gsettings", "set", "org.gnome.shell", "enabled-extensions", enabled], check=True, stdout=sys.stderr)
    _run("gnome-shell", "--headless", "--virtual-monitor", SIZE, "--unsafe-mode", "--no-x11")
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    _connections.append(Gio.DBusConnection.new_for_address_sync(BUS, flags, None, None))
    _until(_owned, "the shell on the bus")
    _until(_started, "the shell's start")
    # Once was lost now and then, while the start was still ending.
    _until(lambda: evaluate(script="Main.overview.hide(); !Main.overview.visible"), "the end of the overview")
    # The sign for what lets the tests look inside is no part of the picture.
    _until(lambda: evaluate(script=HIDE_UNSAFE_MODE), "the quick settings")


def evaluate(*, script: str) -> Any:
    """Run JavaScript in the shell and return what it comes to."""
    ok, text = _call(*SHELL, "Eval", GLib.Variant("(s)", (script,)))
    if not ok:
        raise RuntimeError(f"{script[:200]}: {text}")
    return json.loads(text) if text else None


def until_shown(*, pattern: str) -> str:
    """Return the first text on the monitor that matches, as soon as there is one (gnome_shell.js is needed)."""

    def found() -> str:
        return next((text for text in evaluate(script="seen.texts()") if re.search(pattern, text)), "")

    try:
        return str(_until(found, f"{pattern!r} on the monitor"))
    except TimeoutError as error:
        raise TimeoutError(f"{error}, but {evaluate(script='seen.texts()')}") from error


def until_gone(*, pattern: str) -> None:
    """Return as soon as no text on the monitor matches."""
    _until(lambda: not any(re.search(pattern, text) for text in evaluate(script="seen.texts()")), f"no {pattern!r}")


def picture(*, path: str) -> None:
    """Photograph the monitor."""
    done, _ = _call(*SCREENSHOT, "Screenshot", GLib.Variant("(bbs)", (False, False, path)))
    if not done:
        raise RuntimeError("no picture was taken")


def extension_state(*, uuid: str) -> dict[str, Any]:
    """Return what the shell says of an extension: its state (1: active, 2: inactive, 3: error) and its error."""
    found: dict[str, Any] = evaluate(script=f"(one => ({{state: one.state, error: one.error}}))({_EXTENSION.format(uuid)})")
    return found


def switch(*, uuid: str, on: bool) -> None:
    """Enable or disable an extension."""
    evaluate(script=f"Main.extensionManager.{'enable' if on else 'disable'}Extension('{uuid}')")


def version() -> str:
    """Return the shell's version."""
    return str(evaluate(script="Config.PACKAGE_VERSION"))


def memory() -> dict[str, int]:
    """Return the shell's memory in KiB."""
    rollup = Path(f"/proc/{_processes['gnome-shell'].pid}/smaps_rollup").read_text(encoding="ascii")
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.MULTILINE))
    return {"rss": int(fields["Rss"]), "private": int(fields["Private_Dirty"])}


def accompany() -> None:
    """Have gpuhandoff-session beside the shell, and return when handoffs wait for it."""
    paths = {"PYTHONPATH": "/session:/daemon:/library"}
    program = ("python3", "/desktop/session_inside.py")
    _processes["session"] = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=os.environ | paths)
    _until(lambda: Path("/out/session-waits").exists(), "gpuhandoff-session")


def stop() -> int:
    """End the shell as a log-out does; return its exit status."""
    shell = _processes["gnome-shell"]
    shell.terminate()
    return shell.wait(SETTLE)


def _run(*command: str) -> None:
    _processes[command[0]] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _owned() -> bool:
    shell = _processes["gnome-shell"]
    if shell.poll() is not None:
        raise RuntimeError(f"gnome-shell ended with {shell.returncode}")
    (owned,) = _call(*BUS_ITSELF, "NameHasOwner", GLib.Variant("(s)", (SHELL[0],)))
    return bool(owned)


def _started() -> bool:
    try:
        return bool(evaluate(script="!Main.layoutManager._startingUp"))
    except GLib.Error as error:
        if "UnknownMethod" in str(error):  # it has its name before it has anything behind it
            return False
        raise


def _call(name: str, path: str, interface: str, member: str, parameters: GLib.Variant) -> Any:
    milliseconds = int(SETTLE * 1000)
    flags = Gio.DBusCallFlags.NONE
    return _connections[0].call_sync(name, path, interface, member, parameters, None, flags, milliseconds, None).unpack()


def _until(condition: Callable[[], object], what: str, seconds: float = SETTLE) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come up in {seconds:.0f} s")
        time.sleep(LOOK)
    return found


if __name__ == "__main__":
    verbs = (start, evaluate, until_shown, until_gone, picture, extension_state, switch, version, memory, accompany, stop)
    answer({verb.__name__: verb for verb in verbs})
