"""What other people chose, names and files, is text wherever it is shown: no order to a terminal, no line of its own."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpuhandoff.host.proc import _process
from gpuhandoff.model.address import PciAddress
from gpuhandoff.service.bus.values import plain
from gpuhandoff.service.plain_log import PlainFormatter
from gpuhandoff.service.recent import RecentLines
from gpuhandoff.survey.belonging import belonging
from gpuhandoff.transaction.record import parse
from gpuhandoff.workshop import _check_module, _load, _remove

EVIL = "\x1b]0;owned\x07\x1b[2J\nERROR forged line\r\u202e\x9b31m"


def logged(message: str, arguments: tuple[object, ...] = (), error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    raised = (type(error), error, None) if error is not None else None
    handler.emit(logging.LogRecord("x", logging.WARNING, "f", 1, message, arguments, raised))
    return stream.getvalue()


def test_a_line_of_the_log_is_one_line_of_text() -> None:
    line = logged("ending %s (pid %d)", (EVIL, 7))
    assert line.rstrip("\n").isprintable()
    assert line.count("\n") == 1
    assert r"\x1b]0;owned\x07" in line
    assert logged("plain ä %s", ("text",)) == "WARNING x: plain ä text\n"


def test_so_is_each_line_of_a_traceback() -> None:
    text = logged("it failed", error=KeyError(EVIL))
    assert "KeyError" in text
    assert text.replace("\n", "").isprintable()


def test_so_is_what_a_report_says_of_the_log() -> None:
    recent = RecentLines()
    recent.emit(logging.LogRecord("x", logging.INFO, "f", 1, "%s", (EVIL,), None))
    assert all(line.isprintable() for line in recent.lines())


def test_the_daemon_logs_in_no_other_way() -> None:
    """Whoever sets a handler up sets this formatter."""
    daemon = Path(__file__).parents[2] / "daemon" / "gpuhandoff"
    assert not [path for path in daemon.rglob("*.py") if "= logging.Formatter(" in path.read_text()]
    assert not [
        path for path in daemon.rglob("*.py") if "basicConfig(" in path.read_text() and "format=" in path.read_text()
    ]


def test_a_torn_line_of_the_journal_is_logged_as_text(caplog: pytest.LogCaptureFixture) -> None:
    parse('{"journal": 2}\n' + EVIL.replace("\n", "") + '"\n{"stuck": "' + "\\u001b[2J" + '"}\n', PciAddress(0, 1, 0, 0))
    assert len(caplog.records) >= 2
    for record in caplog.records:
        assert record.getMessage().isprintable()


def test_errors_are_text() -> None:
    told = plain(f"in use by {EVIL}")
    assert told.replace("\n", "").isprintable()


def test_the_name_of_a_process_is_text() -> None:
    """It chooses that itself: prctl(PR_SET_NAME)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(15, b"\x1b[2J\nevil\xff", 0, 0, 0)
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    process = _process(child)
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    assert process is not None
    assert process.name.isprintable()
    assert "evil" in process.name


OWN = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize("name", ["\x1b[2J.service", "a b.scope", "x\ny.service"])
def test_a_cgroup_that_only_looks_like_a_unit_is_none(name: str) -> None:
    """Everybody may make them below their own user@.service, by any name."""
    assert belonging(f"{OWN}/{name}").unit == "user@1000.service"
    assert belonging(f"{OWN}/app.slice/app-x@1.service").unit == "app-x@1.service"
    assert belonging(f"/user.slice/session-{name}.scope").session == ""


def test_what_a_unit_calls_its_application_is_text() -> None:
    escape = r"\x1b"
    assert belonging(f"{OWN}/app.slice/app-gnome-evil{escape}c-17.scope").app == "evil?c"
    assert belonging("/lxc.payload.\x1b[2J/x").container == "LXC ?[2J"


@pytest.mark.parametrize(
    "name", ["", "-r", "--remove", "a b", "../../etc/x", "$(reboot)", "x\ny", "x" * 300, "ä", "a/b", "\0"]
)
def test_only_names_of_modules_are_loaded_and_removed(name: str) -> None:
    for act in (_load, _remove):
        with pytest.raises(OSError, match="not the name of a module"):
            act(name)


@pytest.mark.parametrize("name", ["vfio_pci", "vfio-pci", "nvidia", "pci:v000010DEd00002684sv00001043sd0000889Abc03sc00i00"])
def test_those_are(name: str) -> None:
    _check_module(name)


def test_a_whole_daemon_with_such_a_name_in_its_way_stays_readable(tmp_path: Path) -> None:
    """The same through the program itself: a wrong scenario is repeated in its log."""
    done = subprocess.run(
        [sys.executable, "-m", "gpuhandoff", "--simulate", EVIL], capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.decode().rstrip("\n").isprintable()
