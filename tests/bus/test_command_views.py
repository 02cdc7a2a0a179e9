"""`gpuhandoff holders` and `doctor`, and what every view has in common."""

from __future__ import annotations

import asyncio

from gpuhandoff.errors import AccessDeniedError, InvalidArgsError
from gpuhandoff.messages import Body, Call, Variant
from tests.support.command_daemon import Command, FakeDaemon
from tests.support.shown import EVIL


async def test_holders(daemon: FakeDaemon, command: Command) -> None:
    holder = {
        "pid": Variant("u", 4242),
        "start-time": Variant("t", 7),
        "name": Variant("s", "ollama"),
        "uid": Variant("u", 1000),
        "unit": Variant("s", "ollama.service"),
        "session": Variant("s", "2"),
        "nodes": Variant("as", ["/dev/nvidia0", "/dev/nvidiactl"]),
        "ways": Variant("as", ["open", "mapped"]),
        "who": Variant("s", "Ollama, the service ollama"),
        "leaves": Variant("b", False),
    }
    daemon.answers = {"Holders": ([holder],)}
    ended = await command("holders", "01:00.0")
    assert ended.out == (
        "Ollama, the service ollama\n  ollama (pid 4242, uid 1000), ollama.service, mapped\n  /dev/nvidia0 /dev/nvidiactl\n"
    )
    daemon.answers = {"Holders": ([{**holder, "leaves": Variant("b", True)}],)}
    assert (await command("holders")).out.startswith("Ollama, the service ollama, lets go by itself\n")
    assert (await command("holders", "--json")).documents[0]["holders"][0]["pid"] == 4242
    daemon.answers = {"Holders": ([],)}
    assert (await command("holders")).out == "Nobody has it open.\n"


async def test_a_doctor_who_may_not_ask_says_so(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Diagnose": AccessDeniedError("You are not allowed to do this.")}
    ended = await command("doctor")
    assert ended.status != 0
    assert "!   The machine itself was not looked at: you may not see what gpuhandoffd knows of it.\n" in ended.out
    assert "    Access denied: You are not allowed to do this.\n" in ended.out
    assert "Run it with sudo" in ended.out
    assert "Nothing stands in the way" not in ended.out


async def test_a_doctor_shows_what_the_daemon_finds(daemon: FakeDaemon, command: Command) -> None:
    finding = {"severity": "warning", "check": "reset", "gpu": "", "what": EVIL, "evidence": EVIL, "remedy": EVIL}
    daemon.answers = {"Diagnose": ([{key: Variant("s", value) for key, value in finding.items()}],)}
    ended = await command("doctor")
    assert ended.out.replace("\n", "").isprintable()
    assert "1 warning." in ended.out


async def test_a_wrong_address_is_wrong_usage(daemon: FakeDaemon, command: Command) -> None:
    daemon.answers = {"Preview": InvalidArgsError("gpu: 'x' is not a PCI address such as 0000:01:00.0.")}
    ended = await command("plan", "x")
    assert (ended.status, ended.err) == (2, "gpuhandoff: gpu: 'x' is not a PCI address such as 0000:01:00.0.\n")


async def test_a_daemon_that_says_nothing(daemon: FakeDaemon, command: Command) -> None:
    async def sleep(call: Call) -> Body:
        await asyncio.sleep(30)
        return ()

    daemon.answers = {"Status": sleep}
    patch = "import gpuhandoff_command.connection as c; c.Connection.manager.__kwdefaults__['timeout'] = 0.2"
    ended = await command("status", prelude=patch)
    assert ended.status == 6
    assert ended.err == (
        "gpuhandoff: gpuhandoffd did not answer Status within 0.2 s. "
        "It may still be at work: `gpuhandoff status` shows it.\n"
    )
