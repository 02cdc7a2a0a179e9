"""The user unit of gpuhandoff-session: right, with the graphical session, and packaged."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from gpuhandoff_session.desktops import TARGET
from gpuhandoff_session.service import LAST_WAIT

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/gpuhandoff-session.service"


def value(key: str) -> str:
    """Return a directive's value."""
    found = re.search(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None, key
    return found[1]


def test_it_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])


def test_it_begins_and_ends_with_the_desktop_and_has_the_time_for_it() -> None:
    assert (value("PartOf"), value("WantedBy")) == (TARGET, TARGET)
    assert int(value("TimeoutStopSec").removesuffix("s")) > LAST_WAIT
    assert value("ConditionUser") == "!@system"


def test_the_package_has_all_of_it() -> None:
    installed = (ROOT / "packaging/debian/install").read_text()
    program = value("ExecStart")
    assert f"packaging/{Path(program).name} {Path(program).parent.as_posix().lstrip('/')}\n" in installed
    assert "clients/session/gpuhandoff_session usr/lib/python3/dist-packages\n" in installed
    assert (ROOT / "packaging" / Path(program).name).stat().st_mode & 0o111
    assert f"--name={UNIT.stem}\n" in (ROOT / "packaging/debian/rules").read_text()
    assert f"systemd/{UNIT.name} " in (ROOT / "packaging/debian/rules").read_text()
    assert "docs/gpuhandoff-session.8\n" in (ROOT / "packaging/debian/manpages").read_text()
