"""A refusal that a caller could have allowed, told to somebody who only has the configuration: a hook asks nobody."""

from __future__ import annotations

import re

from gpuhandoff.names import CONFIGURATION_FILE

_OPTION = re.compile(r"\bthe option ([a-z-]+)(?:=([a-z]+))?")
_SWITCHES = frozenset({"stop-display", "accept-risk"})


def in_configuration(sentence: str, guest: str) -> str:
    """Return a sentence with its options as they are written in the configuration, and where."""

    def written(found: re.Match[str]) -> str:
        key, value = found[1], found[2]
        if key not in _SWITCHES and not value:
            return found[0]
        setting = f'{key} = "{value}"' if value else f"{key} = true"
        section = guest.replace("\\", "\\\\").replace('"', '\\"')
        return f'{setting} in the section [vm."{section}"] of {CONFIGURATION_FILE} and `systemctl reload gpuhandoffd`'

    return _OPTION.sub(written, sentence)
