"""Where a process belongs, from its cgroup: unit, application, session, container."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SESSION = re.compile(r"/session-([^/]+)\.scope")
_UNIT = re.compile(r"/([^/]+\.(?:service|scope|socket))(?=/|$)")
_APP = re.compile(
    r"app-(?:(?P<launcher>[^-@]+)-)?(?P<id>.+?)(?:@(?P<instance>[^.]*)|-(?P<random>[0-9a-f]+))?\.(?:service|scope)"
)
_FLATPAK = re.compile(r"app-flatpak-(?P<id>.+)-\d+\.scope")
_SNAP = re.compile(r"snap\.(?P<id>[^.]+)\..+\.(?:service|scope)")
_CONTAINERS = (
    (re.compile(r"/docker[-/](?P<id>[0-9a-f]{12})[0-9a-f]*(?:\.scope)?(?:/|$)"), "docker"),
    (re.compile(r"/libpod-(?P<id>[0-9a-f]{12})[0-9a-f]*(?:\.scope)?(?:/|$)"), "podman"),
    (re.compile(r"/cri-containerd-(?P<id>[0-9a-f]{12})[0-9a-f]*\.scope(?:/|$)"), "containerd"),
    (re.compile(r"/lxc\.payload\.(?P<id>[^/]+)(?:/|$)"), "LXC"),
    (re.compile(r"/machine\.slice/(?:systemd-nspawn@|machine-(?!qemu))(?P<id>[^/]+?)\.(?:service|scope)(?:/|$)"), "machine"),
)
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
"""What systemd makes: below user@.service anybody makes cgroups of any name, also one that looks like a unit."""
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Belonging:
    """Empty where it is not said."""

    unit: str = ""
    app: str = ""
    """The application's id, `org.mozilla.firefox`."""
    session: str = ""
    container: str = ""
    """`docker 0123456789ab`."""


def belonging(cgroup: str) -> Belonging:
    """Return what a path such as /user.slice/user-1000.slice/user@1000.service/app.slice/app-... says."""
    session = _SESSION.search(cgroup)
    units = [unit for unit in _UNIT.findall(cgroup) if _NAME.fullmatch(unit)]
    return Belonging(
        unit=units[-1] if units else "",
        app=next((app for unit in reversed(units) if (app := _app(unit))), ""),
        session=session[1] if session and _NAME.fullmatch(session[1]) else "",
        container=next((f"{kind} {_text(found['id'])}" for form, kind in _CONTAINERS if (found := form.search(cgroup))), ""),
    )


def _app(unit: str) -> str:
    """Return the id that systemd's convention for desktops puts into a unit's name."""
    for form in (_FLATPAK, _SNAP, _APP):
        found = form.fullmatch(unit)
        if found is not None:
            return _text(_ESCAPED.sub(lambda code: chr(int(code[1], 16)), found["id"]))
    return ""


def _text(name: str) -> str:
    """Return a name without orders to a terminal: whoever runs a program names its unit."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
