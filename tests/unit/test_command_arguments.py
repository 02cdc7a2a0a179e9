"""The command line, the sentences, the terminal: what needs no bus."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff import errors
from gpuhandoff.errors import ProblemError
from gpuhandoff_command.arguments import Typed, options_of, parse, parser, size
from gpuhandoff_command.exits import CallError, Exit, status_of
from gpuhandoff_command.history import show_history
from gpuhandoff_command.progress import Progress
from gpuhandoff_command.sentences import sentence, translate
from gpuhandoff_command.terminal import Terminal, clean

MAN = Path(__file__).parents[2] / "docs/gpuhandoff.1"


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        ("1024", 1024),
        ("16G", 16 << 30),
        ("16g", 16 << 30),
        ("16 GiB", 16 << 30),
        ("512M", 512 << 20),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


WRONG = [
    [],
    ["fly"],
    ["handoff", "a", "b"],
    ["handoff", "--memory", "lots"],
    ["handoff", "--memory", "-1"],
    ["handoff", "--memory", "2000000G"],
    ["handoff", "--memory", "٣G"],
    ["handoff", "--timeout", "-1"],
    ["handoff", "--timeout", "86401"],
    ["handoff", "--timeout", "soon"],
    ["handoff", "--timeout", "٣"],
    ["handoff", "--hugepages", "1G"],
    ["handoff", "--vm", "\udcff"],
    ["handoff", "\udcff"],
    ["handoff", "--stop"],
    ["handoff", "--", "true"],
    ["reclaim", "--stop-display"],
    ["run"],
    ["run", "--"],
    ["run", "--gpu", "01:00.0"],
    ["status", "01:00.0"],
    ["history", "-n", "-1"],
    ["history", "-n", "all"],
    ["history", "-n", "100000"],
    ["history", "--names"],
    ["report", "01:00.0"],
    ["report", "-o"],
]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    assert "usage: gpuhandoff" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["run", "true"], ["true"]),
        (["run", "--", "true"], ["true"]),
        (["run", "--json", "--", "a", "--json", "--", "b"], ["a", "--json", "--", "b"]),
        (["run", "--gpu", "x", "qemu", "-m", "4G"], ["qemu", "-m", "4G"]),
    ],
)
def test_a_program_keeps_its_words(words: list[str], program: list[str]) -> None:
    assert parse(words).program == program


def test_only_what_is_given_goes_to_the_daemon() -> None:
    assert options_of(parse(["handoff"])) == {}
    assert options_of(parse(["handoff", "--memory", "0", "--timeout", "0", "--vm", ""])) == {
        "memory": Typed("t", 0),
        "timeout": Typed("u", 0),
        "vm": Typed("s", ""),
    }
    assert options_of(parse(["reclaim", "--evict-guest"])) == {"holders": Typed("s", "terminate")}


def test_every_error_of_the_daemon_has_an_exit_status() -> None:
    told = {
        errors.RolledBackError: Exit.FAILED,
        errors.TimedOutError: Exit.TIMED_OUT,
        errors.CancelledJobError: Exit.CANCELLED,
        errors.StuckError: Exit.STUCK,
        errors.AccessDeniedError: Exit.DENIED,
        errors.AuthorizationRequiredError: Exit.DENIED,
        errors.InvalidArgsError: Exit.USAGE,
        errors.UnknownMethodError: Exit.FAILED,
        errors.UnknownPropertyError: Exit.FAILED,
        errors.PropertyReadOnlyError: Exit.FAILED,
    }
    for error in [kind for kind in ProblemError.__subclasses__() if kind.__module__ == "gpuhandoff.errors"]:
        assert status_of(error.name) is told.get(error, Exit.REFUSED)
    for name in ("Spawn.ChildExited", "TimedOut"):  # the bus could not start it, or still waits for a start that has failed
        assert status_of(f"org.freedesktop.DBus.Error.{name}") is Exit.ABSENT


def test_options_are_named_as_they_are_typed() -> None:
    assert translate("with the option stop-display.") == "with the option --stop-display."
    assert translate("the option holders=terminate.") == "the option --terminate-holders."
    assert translate("the option holders=terminate.", "reclaim") == "the option --evict-guest."
    assert translate("needs the option memory to") == "needs the option --memory to"
    assert translate("try hugepages=transparent, or") == "try --hugepages transparent, or"
    assert translate("the option quiet=true") == "the option --quiet-host"


@given(st.text(), st.sampled_from(["", "handoff", "reclaim"]))
def test_a_sentence_is_one_printable_line(message: str, command: str) -> None:
    assert sentence(CallError("org.gpuhandoff.Error.NeedsConsent", message), command).isprintable()


@given(st.text())
def test_clean_text_obeys_nobody(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text)) == len(text)


@pytest.mark.parametrize(
    ("environment", "unicode"),
    [
        ({"LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "en_US.utf8"}, True),
        ({"LANG": "C"}, False),
        ({"LANG": "de_DE.ISO-8859-1"}, False),
        ({}, False),
        ({"LC_CTYPE": "C.UTF-8"}, False),  # Python's own doing in the C locale
        ({"LC_CTYPE": "C.UTF-8", "LANG": "en_US.UTF-8"}, True),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, False),
        ({"LC_ALL": "C.UTF-8", "LANG": "C"}, True),
    ],
)
def test_signs_follow_the_locale(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], unicode: bool) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    terminal = Terminal(as_json=False, out=out)
    terminal.line("Gäste…")
    assert out.getvalue() == ("Gäste…\n" if unicode else "G?ste...\n")


def test_a_step_is_never_left_open() -> None:
    out = io.StringIO()
    progress = Progress(Terminal(as_json=False, out=out))
    progress.show("bind-vfio", "apply", 9, 10)
    progress.show("a-step-of-a-later-version\x1b", "undo", 8, 10)
    progress.stop()
    progress.stop()
    lines = out.getvalue().splitlines()
    assert [line.partition(" ")[2] for line in lines] == [" 9/10 bind vfio-pci", " 8/10 undo a-step-of-a-later-version?"]


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_what_history_says_fits_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    screen = Screen()
    move = {
        "gpu": "0000:01:00.0", "name": "a card", "operation": "handoff", "why": "asked", "vm": "", "began": 0,
        "seconds": 0.0, "outcome": "refused", "back": "", "steps": [],
        "message": "0000:01:00.0 (a card) " + "is far away " * 12,
    }  # fmt: skip
    show_history(Terminal(as_json=False, out=screen), [move], verbose=False)
    first, *others = screen.getvalue().splitlines()
    assert "  01:00.0  lend  " in first
    assert " ".join(line.strip() for line in others) == ("is far away " * 12).strip()
    assert len(others) == 3
    assert max(len(line) for line in others) <= 60


def test_the_man_page_names_every_command_and_option() -> None:
    page = MAN.read_text(encoding="utf-8").replace("\\-", "-")
    (commands,) = [action.choices for action in parser()._actions if isinstance(action.choices, dict)]
    for name, command in commands.items():
        assert f"\n.B {name}\n" in page or f"\n.BR {name} " in page or f'\n.BI "{name} ' in page
        for option in (option for action in command._actions for option in action.option_strings):
            assert option in page


def test_help_and_mistakes_load_neither_asyncio_nor_dbus() -> None:
    script = (
        "import sys; from gpuhandoff_command.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'asyncio', 'dbus_next'} & set(sys.modules)"
    )
    help_text = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    for status in Exit:
        if status not in {Exit.CANNOT_RUN, Exit.NOT_FOUND}:
            assert f" {int(status)} " in help_text
