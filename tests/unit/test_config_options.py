"""Options as they come over the bus, and the parsers that the files share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhandoff.config import values
from gpuhandoff.config.options import OPTIONS, RECLAIM_OPTIONS, parse_options
from gpuhandoff.config.quote import quote
from gpuhandoff.errors import InvalidArgsError
from gpuhandoff.messages import Variant
from gpuhandoff.model.cpus import format_cpus
from gpuhandoff.model.request import HolderPolicy, Hugepages, Options

GOOD = {
    "wait": (Variant("b", False), False),
    "vm": (Variant("s", "win11"), "win11"),
    "stop-display": (Variant("b", True), True),
    "holders": (Variant("s", "terminate"), HolderPolicy.TERMINATE),
    "cpus": (Variant("s", "0-1,4"), frozenset({0, 1, 4})),
    "memory": (Variant("t", 16 << 30), 16 << 30),
    "hugepages": (Variant("s", "static"), Hugepages.STATIC),
    "quiet": (Variant("b", True), True),
    "accept-risk": (Variant("b", True), True),
    "timeout": (Variant("u", 60), 60),
    "guest-timeout": (Variant("u", 60), 60),
    "bars": (Variant("s", "2=8M, 0=256M"), ((0, 256 << 20), (2, 8 << 20))),
    "lease": (Variant("b", True), True),
    "dry-run": (Variant("b", True), True),
    "interactive": (Variant("b", True), True),
}
MEGABYTE = "\x1b[31m" + "x" * (1 << 20)


def refusal(key: str, variant: Variant, allowed: frozenset[str] = frozenset(OPTIONS)) -> str:
    with pytest.raises(InvalidArgsError) as caught:
        parse_options({key: variant}, Options(), allowed=allowed)
    assert caught.value.name == "org.freedesktop.DBus.Error.InvalidArgs"
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400
    return caught.value.message


def test_every_option_is_covered_here() -> None:
    assert set(GOOD) == set(OPTIONS)
    assert set(OPTIONS) > RECLAIM_OPTIONS


@pytest.mark.parametrize("key", GOOD)
def test_a_good_value_arrives(key: str) -> None:
    variant, value = GOOD[key]
    options = parse_options({key: variant}, Options())
    assert getattr(options, key.replace("-", "_")) == value


def test_what_is_not_given_stays_as_the_defaults_say() -> None:
    defaults = Options(timeout=5, vm="a", cpus=frozenset({3}))
    assert parse_options({}, defaults) == defaults
    assert parse_options({"vm": Variant("s", "b")}, defaults) == Options(timeout=5, vm="b", cpus=frozenset({3}))


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize(
    "wrong", [Variant("s", "x"), Variant("b", True), Variant("x", 1), Variant("a{sv}", {}), Variant("v", 1)]
)
def test_a_wrong_type_names_the_key_and_the_type(key: str, wrong: Variant) -> None:
    if wrong.signature == OPTIONS[key].signature:
        return
    message = refusal(key, wrong)
    assert message.startswith(f"{key}: a")
    assert f"({OPTIONS[key].signature}) is expected, not type '{wrong.signature}'" in message


@pytest.mark.parametrize(
    ("key", "variant", "sentence"),
    [
        ("holders", Variant("s", "kill"), "holders: refuse or terminate is expected, not 'kill'."),
        ("holders", Variant("s", ""), "holders: refuse or terminate is expected, not ''."),
        ("hugepages", Variant("s", "1G"), "hugepages: none or transparent or static is expected, not '1G'."),
        ("timeout", Variant("u", 86401), "timeout: a number of seconds from 0 to 86400 is expected, not 86401."),
        ("memory", Variant("t", (1 << 64) - 1), "memory: a size such as"),
        ("cpus", Variant("s", "0-99999"), "cpus: a list of CPUs from 0 to 8191, such as 0-3,8, is expected, not '0-99999'."),
        ("cpus", Variant("s", "3-1"), "cpus: a list of CPUs"),
        ("cpus", Variant("s", "٣"), "cpus: a list of CPUs"),
        ("cpus", Variant("s", "0,"), "cpus: a list of CPUs"),
        ("vm", Variant("s", "a\nb"), "vm: a name of at most 128 printable characters is expected, not 'a?b'."),
        ("vm", Variant("s", "x" * 129), "vm: a name of at most 128"),
    ],
)
def test_an_impossible_value_names_the_key_and_what_came(key: str, variant: Variant, sentence: str) -> None:
    assert refusal(key, variant).startswith(sentence)


@pytest.mark.parametrize("key", [key for key, kind in OPTIONS.items() if kind.signature == "s"])
@pytest.mark.parametrize("text", [MEGABYTE, "0-8191," * 150_000, "," * (1 << 20), " " * (1 << 20), "9" * (1 << 20)])
def test_a_megabyte_is_refused_in_a_short_sentence(key: str, text: str) -> None:
    assert refusal(key, Variant("s", text)).startswith(f"{key}: ")


def test_a_megabyte_of_a_key() -> None:
    assert refusal(MEGABYTE, Variant("b", True)).startswith("'?[31mxxx")


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    assert refusal("stop_display", Variant("b", True)) == (
        "'stop_display': there is no such option here. Did you mean stop-display?"
    )
    assert "Known: accept-risk, bars, cpus" in refusal("force", Variant("b", True))


def test_reclaim_has_fewer_options() -> None:
    assert "Known: dry-run, holders, interactive, wait." in refusal("cpus", Variant("s", "0"), RECLAIM_OPTIONS)


@given(st.frozensets(st.integers(0, 8191), max_size=100))
def test_cpus_survive_the_list_format(cpus: frozenset[int]) -> None:
    assert values.cpus(format_cpus(cpus)) == cpus


@given(st.integers(0, 1023), st.sampled_from("KMGT"), st.sampled_from(["", "B", "iB"]), st.booleans())
def test_sizes(number: int, unit: str, suffix: str, space: bool) -> None:
    expected = number * 1024 ** ("KMGT".index(unit) + 1)
    assert values.memory(f"{number}{' ' if space else ''}{unit}{suffix}") == expected


@given(
    st.sampled_from(list(OPTIONS)), st.text() | st.integers() | st.booleans() | st.floats() | st.none() | st.lists(st.text())
)
def test_a_parser_returns_a_value_or_says_what_it_expects(key: str, value: object) -> None:
    try:
        OPTIONS[key].parse(value)
    except values.ExpectedError as error:
        expected = str(error)
    else:
        expected = "nothing else"
    assert 0 < len(expected) < 120


@given(st.recursive(st.text() | st.integers() | st.floats() | st.binary(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_a_quote_is_short_and_printable(value: object) -> None:
    assert len(quote(value)) < 100
    assert quote(value).isprintable()
