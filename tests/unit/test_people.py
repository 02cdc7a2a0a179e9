"""Who a process is to a person, from its cgroup and its name."""

from __future__ import annotations

import pytest

from gpuhandoff.model.world import Holder, Process, World
from gpuhandoff.plan.people import describe, program_name
from gpuhandoff.survey.belonging import Belonging, belonging
from tests.support.worlds import ALICE

USER = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("", Belonging()),
        ("/init.scope", Belonging("init.scope")),
        ("/system.slice/ollama.service", Belonging("ollama.service")),
        ("/user.slice/user-1000.slice/session-3.scope", Belonging("session-3.scope", session="3")),
        (f"{USER}/app.slice/app-gnome-org.gnome.TextEditor-4711.scope",
         Belonging("app-gnome-org.gnome.TextEditor-4711.scope", "org.gnome.TextEditor")),
        (f"{USER}/app.slice/app-org.kde.konsole@0b1c2d.service",
         Belonging("app-org.kde.konsole@0b1c2d.service", "org.kde.konsole")),
        (f"{USER}/app.slice/app-flatpak-com.valvesoftware.Steam-815.scope",
         Belonging("app-flatpak-com.valvesoftware.Steam-815.scope", "com.valvesoftware.Steam")),
        (f"{USER}/app.slice/snap.firefox.firefox-0b1c.scope", Belonging("snap.firefox.firefox-0b1c.scope", "firefox")),
        (f"{USER}/app.slice/app-gnome-my\\x2dtool-9.scope", Belonging("app-gnome-my\\x2dtool-9.scope", "my-tool")),
        (f"{USER}/session.slice/plasma-kwin_wayland.service", Belonging("plasma-kwin_wayland.service")),
        ("/system.slice/docker-0123456789abcdef0123.scope",
         Belonging("docker-0123456789abcdef0123.scope", container="docker 0123456789ab")),
        (f"{USER}/user.slice/libpod-0123456789abcdef.scope/container",
         Belonging("libpod-0123456789abcdef.scope", container="podman 0123456789ab")),
        ("/lxc.payload.web/system.slice/nginx.service", Belonging("nginx.service", container="LXC web")),
        ("/machine.slice/systemd-nspawn@box.service/payload",
         Belonging("systemd-nspawn@box.service", container="machine box")),
        ("/machine.slice/machine-qemu-1-guest.scope", Belonging("machine-qemu-1-guest.scope")),
    ],
)  # fmt: skip
def test_where_it_belongs(cgroup: str, expected: Belonging) -> None:
    assert belonging(cgroup) == expected


def holder(name: str, uid: int, cgroup: str, user: str = "") -> Holder:
    where = belonging(cgroup)
    return Holder(
        Process(4242, 1, name, uid, cgroup), ("/dev/dri/card0",), where.unit, where.session, where.app, where.container, user
    )


@pytest.mark.parametrize(
    ("one", "asker", "words"),
    [
        (holder("firefox-bin", 1000, f"{USER}/app.slice/app-firefox@1.service"), 1000, "Firefox, in your session"),
        (holder("firefox", 1000, f"{USER}/app.slice/x.scope"), 0, "Firefox, in the session of alice"),
        (holder("GeckoMain", 1000, f"{USER}/app.slice/app-org.kde.konsole@1.service"), 1000, "Konsole, in your session"),
        (holder("python3", 1000, "/user.slice/user-1000.slice/session-3.scope"), None, "python3, in the session of alice"),
        (holder("ollama", 998, "/system.slice/ollama.service"), 1000, "Ollama, the service ollama"),
        (holder("python3", 0, "/system.slice/docker-0123456789abcdef.scope"), 0,
         "python3, in the container docker 0123456789ab"),
        (holder("Xorg", 0, "/system.slice/sddm.service"), 0, "the X server, the service sddm"),
        (holder("thing", 0, "/"), 0, "thing"),
        (holder("thing", 1001, "/", "bob"), 0, "thing, of bob"),
        (holder("thing", 1002, "/"), 0, "thing, of user 1002"),
    ],
)  # fmt: skip
def test_who_it_is(one: Holder, asker: int | None, words: str) -> None:
    assert describe(World("b", "6.12", (), sessions=(ALICE,)), one, asker) == words


def test_a_program_that_nobody_has_heard_of_keeps_its_name() -> None:
    assert program_name(holder("frobnicate", 1000, "")) == "frobnicate"
