"""The command line."""

from __future__ import annotations

import argparse
import re
from typing import Any

from dbus_next import Variant

_SIZE = re.compile(r"(\d{1,15})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}

EPILOG = """\
exit status: 0 done, 1 failed (and put back), 2 wrong usage, 3 refused, 4 not allowed, 5 no daemon, 6 timed out, 7 stuck,
130 cancelled; `run` exits as its command does. See gpuhandoff(1).
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    top = argparse.ArgumentParser(
        prog="gpuhandoff",
        description="Lends GPUs to virtual machines and takes them back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON, one document a line")
    common.add_argument("--no-ask", action="store_true", help="never ask for a password: fail instead")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", parents=[common], help="show every GPU and where it is")
    plan = commands.add_parser("plan", parents=[common], help="show what a handoff would do; changes nothing")
    _gpu(plan)
    _options(plan)
    plan.add_argument("--reclaim", action="store_true", help="show what taking it back would do")
    handoff = commands.add_parser("handoff", parents=[common], help="lend a GPU")
    _gpu(handoff)
    _options(handoff)
    handoff.add_argument("--no-wait", action="store_true", help="print the job's path and do not wait for its end")
    reclaim = commands.add_parser("reclaim", parents=[common], help="take a GPU back")
    _gpu(reclaim)
    reclaim.add_argument("--timeout", type=int, metavar="SECONDS", help="give up after so many seconds")
    reclaim.add_argument("--no-wait", action="store_true", help="print the job's path and do not wait for its end")
    reclaim.add_argument("--evict-guest", action="store_true", help="end the virtual machine that still has it")
    _gpu(commands.add_parser("holders", parents=[common], help="show which programs have a GPU open"))
    _gpu(commands.add_parser("cancel", parents=[common], help="stop a handoff that runs; what it did is undone"))
    commands.add_parser("watch", parents=[common], help="follow what happens")
    run = commands.add_parser("run", parents=[common], help="lend a GPU for as long as a command runs")
    run.add_argument("--gpu", default="", metavar="ADDRESS", help="PCI address, such as 01:00.0")
    _options(run)
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run meanwhile")
    return top


def options_of(arguments: argparse.Namespace) -> dict[str, Variant]:
    """Return the bus's `a{sv}` of what was given."""
    found: dict[str, Variant] = {}

    def put(key: str, signature: str, name: str, value: Any = None) -> None:
        given = getattr(arguments, name, None)
        if given:
            found[key] = Variant(signature, given if value is None else value)

    put("vm", "s", "vm")
    put("stop-display", "b", "stop_display")
    put("holders", "s", "terminate_holders", "terminate")
    put("holders", "s", "evict_guest", "terminate")
    put("cpus", "s", "cpus")
    put("memory", "t", "memory")
    put("hugepages", "s", "hugepages")
    put("quiet", "b", "quiet_host")
    put("accept-risk", "b", "accept_risk")
    put("timeout", "u", "timeout")
    return found


def size(text: str) -> int:
    """Parse 16G, 512M or bytes."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 16G")
    return int(found[1]) << _SHIFT[found[2].upper()]


def _gpu(command: argparse.ArgumentParser) -> None:
    command.add_argument("gpu", nargs="?", default="", metavar="ADDRESS", help="PCI address, such as 01:00.0")


def _options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("options of the handoff (defaults: gpuhandoff.toml)")
    group.add_argument("--vm", metavar="NAME", help="name of the virtual machine")
    group.add_argument("--stop-display", action="store_true", help="the desktop on this GPU may end")
    group.add_argument("--terminate-holders", action="store_true", help="programs that have it open may be ended")
    group.add_argument("--cpus", metavar="LIST", help="CPUs that the host keeps, such as 0-1")
    group.add_argument("--memory", type=size, metavar="SIZE", help="memory of the guest, such as 16G")
    group.add_argument("--hugepages", choices=["none", "transparent", "static"], help="how it is backed")
    group.add_argument("--quiet-host", action="store_true", help="freeze what the configuration names")
    group.add_argument("--accept-risk", action="store_true", help="of a card that may not come back before a reboot")
    group.add_argument("--timeout", type=int, metavar="SECONDS", help="give up, and undo, after so many seconds")
