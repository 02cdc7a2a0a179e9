"""What the configuration files say when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.config import ConfigurationError, load
from gpuhandoff.config.files import LARGEST
from tests.support.config_files import read, refusal

SECONDS = "a number of seconds from 0 to 86400"
SIZE = 'a size such as "16 GiB", or a number of bytes'
CPUS = "a list of CPUs from 0 to 8191, such as 0-3,8,"
UNITS = 'a list of unit names such as ["ollama.service"]'
PROCESSES = 'a list of process names of at most 15 characters such as ["baloo_file"]'
GOVERNOR = 'a CPU frequency governor such as "performance", or ""'

WRONG_VALUES = [
    ("host", "gpu-services", '"ollama.service"', UNITS, "'ollama.service'"),
    ("host", "gpu-services", '["ollama"]', UNITS, "the list ['ollama']"),
    ("host", "gpu-services", "[1]", UNITS, "the list [1]"),
    ("host", "gpu-services", '["a b.service"]', UNITS, "the list ['a b.service']"),
    ("host", "gpu-services", '["../a.service"]', UNITS, "the list ['../a.service']"),
    ("host", "consoles", '"never"', "auto or leave", "'never'"),
    ("host", "consoles", "false", "auto or leave", "false"),
    ("host", "holder-grace", "-1", SECONDS, "-1"),
    ("host", "holder-grace", "1.5", SECONDS, "1.5"),
    ("host", "holder-grace", "true", SECONDS, "true"),
    ("host", "quiet-units", "{}", UNITS, "a table"),
    ("host", "quiet-processes", '[""]', PROCESSES, "the list ['']"),
    ("host", "quiet-processes", '["baloo_file_extractor"]', PROCESSES, "the list ['baloo_file_extractor']"),
    ("host", "confine-interrupts", '"yes"', "true or false", "'yes'"),
    ("host", "confine-workqueues", "1", "true or false", "1"),
    ("host", "guest-governor", '"Fast!"', GOVERNOR, "'Fast!'"),
    ("host", "inhibit-delay", "86401", SECONDS, "86401"),
    ("host", "session-delay", "-1", SECONDS, "-1"),
    ("defaults", "stop-display", '"true"', "true or false", "'true'"),
    ("defaults", "holders", '"kill"', "refuse or terminate", "'kill'"),
    ("defaults", "holders", "true", "refuse or terminate", "true"),
    ("defaults", "cpus", '"0-"', CPUS, "'0-'"),
    ("defaults", "cpus", "3", CPUS, "3"),
    ("defaults", "cpus", '"8192"', CPUS, "'8192'"),
    ("defaults", "memory", '"lots"', SIZE, "'lots'"),
    ("defaults", "memory", "-1", SIZE, "-1"),
    ("defaults", "memory", "1.5", SIZE, "1.5"),
    ("defaults", "memory", '"2000000 GiB"', SIZE, "'2000000 GiB'"),
    ("defaults", "memory", "0x" + "f" * 5000, SIZE, "a number of more than 64 bits"),
    ("defaults", "hugepages", '"1G"', "none or transparent or static", "'1G'"),
    ("defaults", "quiet", "2026-11-24", "true or false", "'2026-11-24'"),
    ("defaults", "accept-risk", "[]", "true or false", "the list []"),
    ("defaults", "timeout", "86401", SECONDS, "86401"),
    ('gpu."01:00.0"', "timeout", '"x"', SECONDS, "'x'"),
    ('vm."win11"', "timeout", '"x"', SECONDS, "'x'"),
]


@pytest.mark.parametrize(("table", "key", "value", "expected", "found"), WRONG_VALUES)
def test_a_wrong_value_is_told_exactly(etc: Path, table: str, key: str, value: str, expected: str, found: str) -> None:
    error = refusal(etc, f"# a comment\n[{table}]\n\n{key} = {value}\n")
    assert (error.line, error.key, error.expected, error.found) == (4, key, expected, found)
    assert str(error) == f"{etc}/gpuhandoff.toml:4: {key} in [{table}]: {expected} is expected, not {found}."


VITAL = [
    *(
        "-.slice",
        "init.scope",
        "machine.slice",
        "system.slice",
        "machine-qemu\\\\x2d1\\\\x2dwin11.scope",
        "machine-games.slice",
    ),
    *("dbus.service", "dbus-broker.service", "dbus.socket", "gpuhandoffd.service", "polkit.service"),
    *("libvirtd.service", "libvirtd-ro.socket", "virtqemud.service", "virtqemud.socket", "virtlogd.service"),
    "systemd-journald.service",
    *("systemd-logind.service", "elogind.service", "seatd.service", "systemd-udevd.service", "systemd-udevd-control.socket"),
]


@pytest.mark.parametrize("key", ["gpu-services", "quiet-units"])
@pytest.mark.parametrize("unit", VITAL)
def test_vital_units_are_neither_frozen_nor_stopped(etc: Path, key: str, unit: str) -> None:
    error = refusal(etc, f'[host]\n{key} = ["app.slice", "{unit}"]\n')
    assert error.key == key
    name = unit.replace("\\\\", "\\")
    assert error.expected == f"a list without {name}, which the machine, or the way back, cannot do without,"


def test_other_units_may_be(etc: Path) -> None:
    units = ["user.slice", "docker.socket", "virtiofsd.service", "dbusx.socket", "machine-shop.service", "user@1000.service"]
    host = read(etc, f"[host]\nquiet-units = {units}\ngpu-services = {units}\n").host
    assert host.quiet_units == host.gpu_services == tuple(units)


WRONG_KEYS = [
    ("[host]\nholder-grase = 1", 2, "[host] has no key 'holder-grase'. Did you mean holder-grace?"),
    ("[defaults]\nstop_display = true", 2, "[defaults] has no key 'stop_display'. Did you mean stop-display?"),
    ("[defaults]\nvm = 'x'", 2, "[defaults] has no key 'vm'. Known: stop-display, holders, cpus"),
    ("[defaults]\nlease = true", 2, "[defaults] has no key 'lease'."),
    ("[gpu.'01:00.0']\ntimeot = 1", 2, "[gpu.\"01:00.0\"] has no key 'timeot'. Did you mean timeout?"),
    ("[vm.w]\nfoo.bar = 1", 2, "[vm.\"w\"] has no key 'foo'."),
    ("[hosts]\na = 1", 1, "there is no table 'hosts'. Did you mean host?"),
    ("timeout = 1", 1, "there is no table 'timeout'. Known: host, defaults, gpu, vm."),
    ("\nhost = 1", 2, "host: a table, as in [host], is expected, not 1."),
    ("[gpu]\ntimeout = 1", 2, "timeout in [gpu]: a PCI address such as 0000:01:00.0 is expected, not 'timeout'."),
    ("[gpu]\n'01:00.0' = 1", 2, '01:00.0 in [gpu]: a section, as in [gpu."0000:01:00.0"], is expected, not 1.'),
    ("[vm]\nwin11 = true", 2, 'win11 in [vm]: a section, as in [vm."win11"], is expected, not true.'),
    ("[vm.'']\n", 1, " in [vm]: the name of a virtual machine is expected, not ''."),
    (f"[vm.{'x' * 200}]\n", 1, "a name of at most 128 printable characters is expected, not 'xxxx"),
]


@pytest.mark.parametrize(("text", "line", "sentence"), WRONG_KEYS)
def test_a_wrong_key_is_told_exactly(etc: Path, text: str, line: int, sentence: str) -> None:
    error = refusal(etc, text)
    assert error.line == line
    assert sentence in str(error)


WRONG_FILES: list[tuple[str | bytes, int | None, str]] = [
    ("[host\n", 1, "TOML is expected, not what is there: Expected ']' at the end of a table declaration."),
    ("[host]\n\nholder-grace = soon\n", 3, "TOML is expected, not what is there: Invalid value."),
    ('[host]\nconsoles = "auto', 2, "TOML is expected"),
    ("[host]\na = 1\na = 2\n", 3, "Cannot overwrite a value"),
    ("[defaults]\nmemory = " + "9" * 5000, None, "beyond all reason"),
    ("a = " + "[" * 5000, None, "beyond all reason"),
    (b"[host]\nconsoles = '\xff'\n", 2, "UTF-8 text is expected, not what is there: byte 0xff."),
    (b"#" * (LARGEST + 1), None, "a file of at most 1 MiB is expected"),
]


@pytest.mark.parametrize(("text", "line", "sentence"), WRONG_FILES)
def test_a_wrong_file_is_told_exactly(etc: Path, text: str | bytes, line: int | None, sentence: str) -> None:
    error = refusal(etc, text)
    assert error.line == line
    assert sentence in str(error)
    assert len(str(error)) < len(str(etc)) + 300


def test_a_directory_in_place_of_the_file(etc: Path) -> None:
    (etc / "gpuhandoff.toml").mkdir()
    with pytest.raises(ConfigurationError, match="a readable file is expected, not what is there: Is a directory"):
        read(etc)


def test_a_file_in_place_of_the_drop_ins(tmp_path: Path) -> None:
    (tmp_path / "conf.d").touch()
    with pytest.raises(ConfigurationError, match="a readable directory is expected"):
        load(tmp_path / "gpuhandoff.toml", tmp_path / "conf.d")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[defaults]\ntimeout = 1\n[vm.a]\n\ntimeout = -1\n", 5),
        ("defaults.timeout = -1\n", 1),
        ("defaults = { timeout = -1 }\n", 1),
        ("[defaults]\n  'timeout'  =  -1\n", 2),
        ("[vm]\n[vm.a]\n[vm.b]\ntimeout = 1\n[ vm . 'c' ]\ntimeout = -1 # = 2\n", 6),
        ("[host]\nquiet-processes = [\n  'a',\n  'b',\n]\nholder-grace = -1\n", 6),
    ],
)
def test_the_right_line_of_several(etc: Path, text: str, line: int) -> None:
    assert refusal(etc, text).line == line


def test_control_characters_are_never_repeated(etc: Path) -> None:
    error = refusal(etc, '[defaults]\nholders = "\\u001b[2J\\u0007"\n')
    assert "not '?[2J?'" in str(error)
    assert str(error).isprintable()


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_configuration_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    etc = tmp_path_factory.mktemp("etc")
    (etc / "gpuhandoff.toml").write_bytes(text.encode(errors="surrogatepass"))
    try:
        load(etc / "gpuhandoff.toml", etc / "conf.d")
    except ConfigurationError as error:
        told = str(error)
    else:
        told = ""
    assert told == "" or told.startswith(str(etc / "gpuhandoff.toml"))


def test_a_wrong_drop_in_is_named(etc: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"conf\.d/b\.toml:2: quiet in \[defaults\]") as caught:
        read(etc, "", a="[defaults]\n", b="[defaults]\nquiet = 1\n")
    assert caught.value.file.name == "b.toml"
