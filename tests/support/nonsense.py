"""What nobody would write: texts, messages and calls that are almost right, for everything that reads what others wrote."""

from __future__ import annotations

import json
from typing import Any

from dbus_next import Message
from dbus_next import Variant as DBusVariant
from hypothesis import strategies as st

from gpuhandoff import names
from gpuhandoff.messages import Variant
from gpuhandoff.model.address import PciAddress
from gpuhandoff.service.interface import interfaces, standard_interfaces

CARD = PciAddress(0, 1, 0, 0)
PIECES = [
    "",
    "\0",
    "\x1b[2J",
    "\n",
    "'",
    '"',
    "<",
    ">",
    "&a;",
    "{",
    "}",
    "[",
    "]",
    "=",
    "-1",
    "0x",
    "1e999",
    "9" * 5000,
    "ä\ud800",
]
PIECES += ["true", "null", "%n", "../", "<a>" * 70, "[" * 2000, "0-8191", "0000:01:00.0", "\u202e", "<!DOCTYPE x>", "\x7f"]


def mutated(*seeds: str) -> st.SearchStrategy[str]:
    """Return texts that are almost one of these."""
    edit = st.tuples(st.integers(0, 4000), st.integers(0, 40), st.sampled_from(PIECES) | st.text(max_size=6))
    return st.builds(_edit, st.sampled_from(seeds), st.lists(edit, max_size=6)) | st.text(max_size=200)


def _edit(text: str, edits: list[tuple[int, int, str]]) -> str:
    for place, length, piece in edits:
        start = place % (len(text) + 1)
        text = text[:start] + piece + text[start + length :]
    return text


def a_message() -> bytes:
    options = {
        "vm": DBusVariant("s", "win11"),
        "deep": DBusVariant("v", DBusVariant("a{sv}", {"x": DBusVariant("ay", b"y")})),
    }
    message = Message(
        names.BUS_NAME,
        names.MANAGER_PATH,
        names.MANAGER_INTERFACE,
        "Handoff",
        signature="sa{sv}",
        body=["", options],
        serial=7,
    )
    return bytes(message._marshall())  # type: ignore[no-untyped-call]


def spoiled(data: bytes) -> st.SearchStrategy[bytes]:
    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 8), st.binary(max_size=8))
    return st.lists(edit, min_size=1, max_size=5).map(lambda edits: _spoil(data, edits))


def _spoil(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for start, length, piece in edits:
        data = data[:start] + piece + data[start + length :]
    return data


def values(signature: str) -> st.SearchStrategy[Any]:
    """Return values of a D-Bus type."""
    text = st.sampled_from(["", "0000:01:00.0", "handoff", "win11", "block", names.MANAGER_INTERFACE, *PIECES]) | st.text(
        max_size=9
    )
    match signature:
        case "s":
            return text
        case "u":
            return st.integers(0, 2**32 - 1)
        case "v":
            return st.sampled_from(["s", "u", "b", "t", "as"]).flatmap(
                lambda one: st.builds(Variant, st.just(one), values(one))
            )
        case "b":
            return st.booleans()
        case "t":
            return st.integers(0, 2**64 - 1)
        case "as":
            return st.lists(text, max_size=4)
        case "a{sv}":
            return st.dictionaries(st.sampled_from(OPTIONS) | text, values("v"), max_size=5)
    raise ValueError(signature)


OPTIONS = [
    "wait",
    "vm",
    "stop-display",
    "holders",
    "cpus",
    "memory",
    "hugepages",
    "quiet",
    "accept-risk",
    "timeout",
    "lease",
]
OPTIONS += ["guest-timeout", "dry-run", "interactive", "names"]
TAKES = {
    (interface, member): method.takes
    for interface, one in {**interfaces(), **standard_interfaces()}.items()
    for member, method in one.methods.items()
}


PATHS = [names.MANAGER_PATH, names.ROOT_PATH, "/", names.GPU_PATH_PREFIX + "0000_01_00_0", names.JOB_PATH_PREFIX + "1"]


def parts(signature: str) -> list[str]:
    """Return the types of a method's arguments."""
    found: list[str] = []
    while signature:
        one = next(kind for kind in ("a{sv}", "as", signature[0]) if signature.startswith(kind))
        found.append(one)
        signature = signature[len(one) :]
    return found


def calls() -> st.SearchStrategy[list[Any]]:
    one = st.sampled_from(sorted(TAKES)).flatmap(
        lambda key: st.tuples(
            st.just(key), st.sampled_from(PATHS), st.tuples(*(values(kind) for kind in parts(TAKES[key]))), st.booleans()
        )
    )
    return st.lists(one, min_size=1, max_size=12)


JOURNAL = "\n".join(
    json.dumps(one)
    for one in (
        {"journal": 2, "boot": "b", "job": 1, "operation": "handoff", "vm": "w", "steps": 2, "nodes": ["/dev/dri/card0"]},
        {"will": 0, "step": "inhibit-sleep", "arguments": {"gpu": "x"}, "saved": {}},
        {"did": 0},
        {"held": True, "at": 12.5},
        {"guest": {"pid": 7, "start_time": 8, "name": "qemu", "uid": 9}},
        {"undoing": "why"},
        {"stuck": 0, "message": "m"},
    )
)
HISTORY = b'{"move":1,"gpu":"0000:01:00.0","operation":"handoff","why":"asked","began":1,"boot":"b","uid":0,"job":1}'
CGROUPS = (
    r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.mozilla.firefox\x2d1-17.scope",
    "/user.slice/user-1000.slice/session-2.scope",
    "/system.slice/docker-0123456789abcdef0123.scope",
    "/lxc.payload.web/init.scope",
)
TOML = """[host]
gpu-services = ["nvidia-persistenced.service"]
quiet-units = ["a.service"]
reclaim-grace = 10
[defaults]
stop-display = true
cpus = "0-3,8"
memory = "16 GiB"
[gpu."0000:01:00.0"]
holders = "terminate"
[vm."win11"]
hugepages = "static"
"""
