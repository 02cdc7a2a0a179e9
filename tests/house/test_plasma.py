"""The Plasma widget keeps up with the daemon, and its translations with it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import gpuhandoff
from gpuhandoff.steps import STEPS
from tests.support.catalogue import Message, catalogue, marked

ROOT = Path(__file__).parents[2]
WIDGET = ROOT / "clients/plasma"
UI = WIDGET / "package/contents/ui"
LANGUAGES = ("de", "zh_CN")
INTERFACE = "org.gpuhandoff.Manager"


def cases(function: str) -> set[str]:
    """Return the cases that a function of Words.qml tells apart."""
    body = re.search(rf"function {function}\(.*?\n    \}}\n", (UI / "Words.qml").read_text(), re.DOTALL)
    assert body is not None
    return set(re.findall(r'case "([^"]+)":', body[0]))


def messages() -> list[Message]:
    """Return what the widget says, as its QML marks it for translation."""
    return [one for path in sorted(UI.glob("*.qml")) for one in marked(path.read_text())]


def test_every_signal_has_a_function_with_its_arguments() -> None:
    """Plasma warns about each signal of a watched interface that has none, whenever it comes."""
    root = ET.parse(ROOT / "dbus/org.gpuhandoff.Manager.xml").getroot()
    interface = next(one for one in root.findall("interface") if one.get("name") == INTERFACE)
    wanted = {f"dbus{one.get('name')}": len(one.findall("arg")) for one in interface.findall("signal")}
    written = re.findall(r"function (dbus\w+)\(([^)]*)\)", (UI / "Manager.qml").read_text())
    assert {name: len([one for one in arguments.split(",") if one]) for name, arguments in written} == wanted


def test_properties_that_it_reads_exist() -> None:
    root = ET.parse(ROOT / "dbus/org.gpuhandoff.Manager.xml").getroot()
    known = {
        f"{one.get('name')}": {each.get("name") for each in one.findall("property")} for one in root.findall("interface")
    }
    card, manager = (UI / "Card.qml").read_text(), (UI / "Manager.qml").read_text()
    read = {
        "org.gpuhandoff.Gpu": set(re.findall(r"gpu\.properties\.(\w+)", card)),
        "org.gpuhandoff.Job": set(re.findall(r"job\.properties\.(\w+)", card)),
        INTERFACE: set(re.findall(r"properties\.properties\.(\w+)", manager)),
    }
    assert all(read.values())
    for interface, names in read.items():
        assert names <= known[interface]


@pytest.mark.parametrize("function", ["doing", "undoing"])
def test_every_step_has_words(function: str) -> None:
    assert cases(function) == set(STEPS)


def test_every_state_has_words() -> None:
    assert cases("state") == {"host", "handing-off", "detached", "guest", "reclaiming", "foreign", "stuck"}


def test_every_verdict_has_words() -> None:
    assert cases("verdict") == {"safe", "unknown", "caution", "needs vendor-reset", "once per boot", "broken"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_is_translated(language: str) -> None:
    said = {(one.context, one.text) for one in messages()}
    assert len(said) > 100
    translated = {(one.context, one.text): one for one in catalogue((WIDGET / f"po/{language}.po").read_text())}
    assert set(translated) == said
    assert not [one for one in translated.values() if not all(one.translations)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_have_the_same_places_for_values(language: str) -> None:
    for one in catalogue((WIDGET / f"po/{language}.po").read_text()):
        wanted = set(re.findall(r"%\d", one.plural or one.text))
        for translation in one.translations[-1:]:
            assert set(re.findall(r"%\d", translation)) == wanted, one.text
        for translation in one.translations:
            assert set(re.findall(r"%\d", translation)) <= wanted, one.text


def test_the_languages_are_those_of_the_description() -> None:
    plugin = json.loads((WIDGET / "package/metadata.json").read_text())["KPlugin"]
    assert {path.stem for path in (WIDGET / "po").glob("*.po")} == set(LANGUAGES)
    assert all(plugin.get(f"{key}[{language}]") for key in ("Name", "Description") for language in LANGUAGES)
    assert plugin["Version"] == gpuhandoff.__version__
    assert plugin["Id"] == "org.gpuhandoff.plasma"


def test_text_from_the_daemon_is_never_markup() -> None:
    """Programs choose their names, and virtual machines theirs: a label guesses that <b> is markup unless told."""
    label = re.compile(r"^( *)(?:PlasmaComponents\.Label|PlasmaExtras\.Heading) \{\n(.*?)^\1\}", re.MULTILINE | re.DOTALL)
    given = re.compile(r"^ *text: .*(?:notice\.|card\.|stateText|stepText|modelData)", re.MULTILINE)
    found = [(path.name, body) for path in sorted(UI.glob("*.qml")) for _, body in label.findall(path.read_text())]
    assert len([body for _, body in found if given.search(body)]) > 5
    assert not [name for name, body in found if given.search(body) and "textFormat: Text.PlainText" not in body]
