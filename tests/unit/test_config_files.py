"""The configuration files: what they mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpuhandoff.config import Configuration, ConfigurationError, HostSettings, load
from gpuhandoff.config.configuration import HOST_PARSERS
from gpuhandoff.config.options import OPTIONS
from gpuhandoff.model.address import PciAddress
from gpuhandoff.model.request import HolderPolicy, Hugepages, Options
from tests.support.config_files import read

GPU = PciAddress.parse("0000:01:00.0")
MAN = Path(__file__).parents[2] / "docs/gpuhandoff.toml.5"
SHIPPED = Path(__file__).parents[2] / "daemon/gpuhandoff/config/gpuhandoff.toml"


def test_no_files_are_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "absent.toml", tmp_path / "absent.d") == Configuration()


def test_an_empty_file_is_the_defaults(etc: Path) -> None:
    assert read(etc, "") == Configuration()


def test_everything(etc: Path) -> None:
    configuration = read(
        etc,
        """
        [host]
        gpu-services = ["ollama.service"]
        consoles = "leave"
        holder-grace = 3
        quiet-units = ["app.slice"]
        quiet-processes = ["baloo_file"]
        confine-interrupts = true
        confine-workqueues = true
        guest-governor = "performance"
        inhibit-delay = 0
        session-delay = 0
        reclaim-grace = 30
        [defaults]
        stop-display = true
        holders = "terminate"
        cpus = "0-1,4"
        memory = "16 GiB"
        hugepages = "static"
        quiet = true
        accept-risk = true
        bars = "0=256M"
        timeout = 120
        guest-timeout = 60
        """,
    )
    assert configuration.host == HostSettings(
        gpu_services=("ollama.service",),
        consoles="leave",
        holder_grace=3,
        quiet_units=("app.slice",),
        quiet_processes=("baloo_file",),
        confine_interrupts=True,
        confine_workqueues=True,
        guest_governor="performance",
        inhibit_delay=0,
        session_delay=0,
        reclaim_grace=30,
    )
    assert configuration.options_for(GPU, "") == Options(
        stop_display=True,
        holders=HolderPolicy.TERMINATE,
        cpus=frozenset({0, 1, 4}),
        memory=16 << 30,
        hugepages=Hugepages.STATIC,
        quiet=True,
        accept_risk=True,
        bars=((0, 256 << 20),),
        timeout=120,
        guest_timeout=60,
    )


def test_defaults_then_gpu_then_vm(etc: Path) -> None:
    configuration = read(
        etc,
        """
        [defaults]
        timeout = 1
        memory = 1
        cpus = "0"
        [gpu."01:00.0"]
        memory = 2
        cpus = "1"
        [vm."win11"]
        cpus = "2"
        """,
    )
    other = PciAddress.parse("02:00.0")
    win11, nothing = configuration.options_for(GPU, "win11"), configuration.options_for(other, "")
    assert (win11.timeout, win11.memory, win11.cpus) == (1, 2, frozenset({2}))
    assert configuration.options_for(GPU, "other").cpus == frozenset({1})
    assert configuration.options_for(None, "win11").memory == 1
    assert (nothing.memory, nothing.cpus) == (1, frozenset({0}))


def test_later_files_win_key_by_key(etc: Path) -> None:
    configuration = read(
        etc,
        "[host]\nholder-grace = 1\ninhibit-delay = 1\n[vm.a]\ntimeout = 1\nmemory = 1\n",
        a10="[host]\nholder-grace = 2\n[vm.a]\ntimeout = 2\n",
        b20="[host]\nholder-grace = 3\n[defaults]\nquiet = true\n",
    )
    assert configuration.host.holder_grace == 3
    assert configuration.host.inhibit_delay == 1
    options = configuration.options_for(None, "a")
    assert (options.timeout, options.memory, options.quiet) == (2, 1, True)


def test_only_toml_files_are_drop_ins(etc: Path) -> None:
    (etc / "conf.d" / "notes.txt").write_text("nonsense", encoding="utf-8")
    (etc / "conf.d" / "old.toml~").write_text("nonsense", encoding="utf-8")
    assert read(etc) == Configuration()


def test_the_man_page_names_every_key_and_shows_real_errors(etc: Path) -> None:
    page = MAN.read_text(encoding="utf-8").replace("\\-", "-")
    keys = {key for key, kind in OPTIONS.items() if kind.configurable} | set(HOST_PARSERS)
    assert [key for key in keys if not re.search(rf"^\.B.*\b{key}\b", page, re.MULTILINE)] == []
    (etc / "conf.d" / "win11.toml").write_text('[defaults]\n[vm."win11"]\nmemroy = 1\n', encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read(etc)
    assert str(caught.value).replace(str(etc), "/etc/gpuhandoff") in page


def test_the_shipped_file_changes_nothing(etc: Path) -> None:
    assert read(etc, SHIPPED.read_text(encoding="utf-8")) == Configuration()


def test_the_shipped_file_names_every_key_with_its_default(etc: Path) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    active = "\n".join(
        line.removeprefix("#") for line in lines if line.startswith(("#[", "#")) and not line.startswith("# ")
    )
    configuration = read(etc, active)
    assert configuration.host == HostSettings()
    assert configuration.options_for(None, "") == Options()
    assert {key.replace("_", "-") for key in configuration.defaults} == {
        "stop-display", "holders", "cpus", "memory", "hugepages", "quiet", "accept-risk", "bars",
        "timeout", "guest-timeout",
    }  # fmt: skip
    for name in HostSettings.__dataclass_fields__:
        assert f"\n{name.replace('_', '-')} = " in f"\n{active}"
