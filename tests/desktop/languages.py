"""Inside the enclosed Debian: what a session needs in order to speak another language."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOCALES = {"de": "de_DE", "zh_CN": "zh_CN"}


def speak(language: str) -> None:
    """Make a locale of a language and use it: glibc translates nothing in C.UTF-8, whatever LANGUAGE says."""
    folder = Path.home() / "locales"
    folder.mkdir()
    name = f"{LOCALES[language]}.UTF-8"
    make = ("localedef", "-i", LOCALES[language], "-f", "UTF-8", "--no-archive", str(folder / name))
    subprocess.run(make, check=True, stdout=sys.stderr)
    os.environ |= {"LOCPATH": str(folder), "LANG": name, "LANGUAGE": language}
