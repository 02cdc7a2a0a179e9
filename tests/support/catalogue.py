"""What a program says and how it is translated: marks in QML or JavaScript, and gettext's .po files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_LITERAL = r'"((?:[^"\\]|\\.)*)"'
_MARK = re.compile(rf"\bi18n(c?)(p?)\(\s*{_LITERAL}(?:\s*,\s*{_LITERAL})?(?:\s*,\s*{_LITERAL})?")


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence; where it was read from a catalogue with its translations, one for each plural form."""

    text: str
    context: str = ""
    plural: str = ""
    translations: tuple[str, ...] = ()


def marked(source: str) -> Iterator[Message]:
    """Give the sentences that a source has in i18n, i18nc, i18np and i18ncp."""
    for context, plural, *literals in _MARK.findall(source):
        words = [_unquoted(one) for one in literals]
        where = words.pop(0) if context else ""
        yield Message(words[0], where, words[1] if plural else "")


def catalogue(text: str) -> Iterator[Message]:
    """Give the sentences of a .po file, its header aside."""
    for block in text.split("\n\n")[1:]:
        fields: dict[str, str] = {}
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            name, literal = line.split(" ", 1)
            fields[name] = json.loads(literal)
        translations = tuple(value for name, value in fields.items() if name.startswith("msgstr"))
        yield Message(fields["msgid"], fields.get("msgctxt", ""), fields.get("msgid_plural", ""), translations)


def _unquoted(literal: str) -> str:
    return str(json.loads(f'"{literal}"'))
