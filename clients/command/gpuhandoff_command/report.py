"""`gpuhandoff report`: what a maintainer wants to know, readable first, complete after that."""

from __future__ import annotations

import io
import json
import os
import time
from typing import Any

from gpuhandoff_command.exits import CallError
from gpuhandoff_command.history import headline
from gpuhandoff_command.terminal import Terminal, clean

LATEST = 10
"""Moves that are shown readably."""
WRITE_FAILED = "org.gpuhandoff.Error.Failed"


def give_report(terminal: Terminal, text: str, output: str) -> None:
    """Print a report, or write it to the file `output`; raises CallError when that cannot be done."""
    document = json.loads(text)
    if output not in {"", "-"}:
        _write(output, [text] if terminal.as_json else _lines(document))
        terminal.value({"report": output, "left-out": document["left-out"], "notes": document["notes"]})
        terminal.line(f"The report is in {clean(output)}.")
        terminal.line(_about_names(document))
        terminal.line("Look through it before you show it to anybody.")
        return
    terminal.value(document)
    for line in _lines(document):
        terminal.line(line)


def _write(output: str, lines: list[str]) -> None:
    """Write for the owner's eyes only, where the file is new."""
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise CallError(WRITE_FAILED, f"The report cannot be written to {output}: {error.strerror}.") from error


def _lines(document: dict[str, Any]) -> list[str]:
    versions = document["versions"]
    system = ", ".join(
        f"{name} {clean(versions[key])}"
        for key, name in (("kernel", "Linux"), ("systemd", "systemd"), ("python", "Python"), ("nvidia", "NVIDIA driver"))
        if versions.get(key)
    )
    return [
        f"gpuhandoff {clean(versions.get('gpuhandoff', ''))}, report of {clean(document['made'])}",
        f"{clean(versions.get('distribution', '') or 'unknown distribution')}, {system}",
        _about_names(document),
        *_section("GPUs", [_gpu(address, gpu) for address, gpu in document["gpus"].items()]),
        *_section("Latest moves", [line for move in document["history"][:LATEST] for line in _move(move)]),
        *_section("The kernel's log", [clean(line) for line in document["kernel-log"]]),
        *_section("The daemon's log", [clean(line) for text in document["log"] for line in text.splitlines()]),
        *_section("What could not be read", [clean(note) for note in document["notes"]]),
        "",
        "Everything, as JSON:",
        "{",
        *_members(document),
        "}",
    ]


def _about_names(document: dict[str, Any]) -> str:
    left_out = [clean(one) for one in document["left-out"]]
    return f"Left out: {'; '.join(left_out)}." if left_out else "It contains names of users, virtual machines and the host."


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _gpu(address: str, gpu: dict[str, Any]) -> str:
    reason = f": {clean(gpu['reason'])}" if gpu["reason"] else ""
    return f"{clean(address)}  {clean(gpu['name'])}, {clean(gpu['state'])}, driver {clean(gpu['driver']) or 'none'}{reason}"


def _move(move: dict[str, Any]) -> list[str]:
    colourless = Terminal(as_json=False, out=io.StringIO())
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(move["began"] / 1e6))
    return [headline(colourless, when, move), *([f"    {clean(move['message'])}"] if move["message"] else [])]


def _members(document: dict[str, Any]) -> list[str]:
    """One line each: can be read by eye, and by a program."""
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    return [f"{member}," for member in members[:-1]] + members[-1:]
