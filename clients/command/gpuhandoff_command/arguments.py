"""The command line. Imports nothing that takes time: --help and mistakes answer at once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_SIZE = re.compile(r"([0-9]{1,15}) ?([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_MOST_MEMORY = 1 << 50
_MOST_SECONDS = 86400
_MOST_ENTRIES = 99999

EPILOG = """\
exit status:
    0  done
    1  failed; what was done is undone
    2  wrong usage
    3  refused: no such GPU, busy, in use, inhibited, not isolated, unsupported, consent needed
    4  not allowed
    5  gpuhandoffd is not there, or went away
    6  took too long; what was done is undone
    7  stuck: failed, and could not be undone
    8  doctor: nothing worse than warnings
  130  cancelled
`run` and `inhibit` end with their command's own status, or 128 and the signal that ended it.

gpuhandoff(1) explains all of it; gpuhandoff.toml(5) sets defaults.
"""
_WITH_PROGRAM = {"run": "run [--gpu ADDRESS] [OPTION...]", "inhibit": "inhibit [--why WHY]"}


class Typed(NamedTuple):
    """A value with its D-Bus type: what becomes a variant on the bus."""

    signature: str
    value: Any


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ends the process with 2 when it is wrong."""
    # What follows `--` is the program's, to the letter; argparse of different versions disagree about it.
    own, program = list(words), []
    if "--" in own:
        place = own.index("--")
        own, program = own[:place], own[place + 1 :]
    commands = parser()
    arguments = commands.parse_args(own)
    if arguments.command in _WITH_PROGRAM:
        arguments.program = [*arguments.program, *program]
        if not arguments.program:
            commands.error(f"say what to run: gpuhandoff {_WITH_PROGRAM[arguments.command]} -- COMMAND")
    elif program:
        commands.error(f"{arguments.command} takes no command: {' '.join(program)}")
    return arguments


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    top = argparse.ArgumentParser(
        prog="gpuhandoff",
        description="Lends GPUs to virtual machines and takes them back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _everywhere(top, default=False)
    common = argparse.ArgumentParser(add_help=False)
    _everywhere(common, default=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=words, description=f"{words}.", allow_abbrev=False)

    add("status", "show every GPU: where it is, and what lending it would take")
    plan = add("plan", "show every step of a handoff, and what it costs; changes nothing")
    _gpu(plan)
    _options(plan)
    plan.add_argument("--reclaim", action="store_true", help="show the steps of taking it back instead")
    plan.add_argument("-v", "--verbose", action="store_true", help="show how each step is undone, and how long it takes")
    handoff = add("handoff", "lend a GPU")
    _gpu(handoff)
    _options(handoff)
    _no_wait(handoff)
    reclaim = add("reclaim", "take a GPU back")
    _gpu(reclaim)
    reclaim.add_argument("--evict-guest", action="store_true", help="end the virtual machine that still has it")
    _no_wait(reclaim)
    run = add("run", "lend a GPU for as long as a command runs")
    run.add_argument("--gpu", default="", type=text, metavar="ADDRESS", help="PCI address, such as 01:00.0")
    _options(run)
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run meanwhile")
    inhibit = add("inhibit", "have no GPU handed off for as long as a command runs")
    inhibit.add_argument("--why", default="", type=text, help="what would be lost; told to whoever is refused")
    inhibit.add_argument("--who", default="", type=text, help="who does not want it (default: the command's name)")
    words = "block refuses handoffs (default), delay holds them off for a short time"
    inhibit.add_argument("--mode", choices=["block", "delay"], default="block", help=words)
    inhibit.add_argument("program", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run meanwhile")
    _gpu(add("holders", "show which programs have a GPU open"))
    history = add("history", "show what was done with the GPUs, also before the last reboot; newest first")
    _gpu(history, "PCI address, such as 01:00.0; without one, all GPUs")
    history.add_argument("-n", dest="count", type=count, default=20, metavar="COUNT", help="how many; 0: all (default: 20)")
    history.add_argument("-v", "--verbose", action="store_true", help="show the steps, and who asked")
    report = add("report", "collect what is needed to find out why something does not work; changes nothing")
    report.add_argument("--names", action="store_true", help="keep names of users, virtual machines and the host")
    report.add_argument("-o", "--output", default="", metavar="FILE", help="write it to FILE")
    cancel = add("cancel", "stop a handoff that runs; what it did is undone")
    _gpu(cancel)
    _no_wait(cancel)
    add("doctor", "find what stands in the way of lending a GPU and getting it back; changes nothing")
    add("watch", "follow what happens, until Ctrl-C")
    return top


def options_of(arguments: argparse.Namespace) -> dict[str, Typed]:
    """Return the bus's `a{sv}` of what was given; what was not given is left to the configuration."""
    found: dict[str, Typed] = {}

    def put(key: str, signature: str, name: str, value: Any = None) -> None:
        given = getattr(arguments, name, None)
        if given is not None and given is not False:
            found[key] = Typed(signature, given if value is None else value)

    put("vm", "s", "vm")
    put("stop-display", "b", "stop_display")
    put("holders", "s", "terminate_holders", "terminate")
    put("holders", "s", "evict_guest", "terminate")
    put("cpus", "s", "cpus")
    put("memory", "t", "memory")
    put("hugepages", "s", "hugepages")
    put("quiet", "b", "quiet_host")
    put("accept-risk", "b", "accept_risk")
    put("bars", "s", "bars")
    put("timeout", "u", "timeout")
    put("guest-timeout", "u", "guest_timeout")
    return found


def size(given: str) -> int:
    """Parse 16G, 512M, "16 GiB" or bytes."""
    found = _SIZE.fullmatch(given)
    if found is None or (bytes_ := int(found[1]) << _SHIFT[found[2].upper()]) > _MOST_MEMORY:
        raise argparse.ArgumentTypeError(f"{given[:40]!r} is not a size such as 16G")
    return bytes_


def seconds(given: str) -> int:
    """Parse a number of seconds, at most a day."""
    if not given.isascii() or not given.isdigit() or len(given) > len(str(_MOST_SECONDS)) or int(given) > _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{given[:40]!r} is not a number of seconds from 0 to {_MOST_SECONDS}")
    return int(given)


def count(given: str) -> int:
    """Parse how many are wanted."""
    if not given.isascii() or not given.isdigit() or len(given) > len(str(_MOST_ENTRIES)):
        raise argparse.ArgumentTypeError(f"{given[:40]!r} is not a number from 0 to {_MOST_ENTRIES}")
    return int(given)


def text(given: str) -> str:
    """Accept what the bus can carry: text, not any bytes."""
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{given[:40]!r} is not text") from error
    return given


def _everywhere(command: argparse.ArgumentParser, *, default: Any) -> None:
    command.add_argument("--json", action="store_true", default=default, help="print JSON, one document a line")
    command.add_argument("--no-ask", action="store_true", default=default, help="never ask for a password: fail instead")


def _gpu(
    command: argparse.ArgumentParser,
    words: str = "PCI address, such as 01:00.0; may be left out where only one GPU qualifies",
) -> None:
    command.add_argument("gpu", nargs="?", default="", type=text, metavar="GPU", help=words)


def _no_wait(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-wait", action="store_true", help="print the job's path and do not wait for its end")


def _options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("options of the handoff (defaults: gpuhandoff.toml)")
    group.add_argument("--vm", type=text, metavar="NAME", help="name of the virtual machine")
    group.add_argument("--stop-display", action="store_true", help="consent: the desktop on this GPU may end")
    group.add_argument("--terminate-holders", action="store_true", help="consent: programs that have it open may be ended")
    group.add_argument("--cpus", type=text, metavar="LIST", help="CPUs that the host keeps, such as 0-1,4")
    group.add_argument("--memory", type=size, metavar="SIZE", help="memory of the guest, such as 16G (of 1024 MiB each)")
    group.add_argument("--hugepages", choices=["none", "transparent", "static"], help="how that memory is backed")
    group.add_argument("--quiet-host", action="store_true", help="pause what the configuration names")
    group.add_argument("--accept-risk", action="store_true", help="consent: to a card that may need a reboot to come back")
    group.add_argument("--bars", type=text, metavar="LIST", help="memory windows (Resizable BAR), such as 0=256M,2=8M")
    group.add_argument("--timeout", type=seconds, metavar="SECONDS", help="give up, and undo, after so many seconds")
    words = "take the GPU back when no virtual machine has opened it after so many seconds"
    group.add_argument("--guest-timeout", type=seconds, metavar="SECONDS", help=words)
