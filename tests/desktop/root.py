"""A Debian of its own to run a desktop in: unpacked once, kept by what it is made of.

Needs mmdebstrap and root. Packages come from where this machine's own come from; nothing of it is started or changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
UNUSED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
"""What no test looks at, left out for its size."""
KEPT = ("/usr/share/locale/*/LC_MESSAGES/gnome-shell.mo",)
"""GLib translates nothing of an extension where the program itself has no catalogue of the language."""
OPTIONS = (
    'APT::Install-Recommends "false"',
    'Acquire::Languages "none"',
    # A mirror that stands still, or a snapshot, has a Release file that has run out. It is signed all the same.
    'Acquire::Check-Valid-Until "false"',
    'Acquire::Check-Date "false"',
)
USER = 1000
"""Who runs the desktop."""
_PASSWD = f"tester:x:{USER}:{USER}::/home/tester:/bin/sh\n"
_GROUP = f"tester:x:{USER}:\n"


def built(suite: str, packages: Sequence[str], *, files: Sequence[Path] = ()) -> Path:
    """Return the root of a suite with these packages, made now unless the same was made before (two minutes, 1.5 GiB).

    `files` are .deb files to install with the packages.
    """
    root = _cache() / f"{suite}-{_key(suite, packages, files)}"
    complete = root.with_name(f"{root.name}.complete")
    if not complete.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        _make(root, suite, [*packages, *(str(path) for path in files)])
        complete.touch()
    return root


def mirror() -> str:
    """Return the archive that this machine's Debian packages come from."""
    asked = ("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    found = [uri for label, _, uri in (line.partition(" ") for line in done.stdout.splitlines()) if label == "Debian"]
    if not found:
        raise RuntimeError(
            "No archive of Debian is configured here, or its lists were never read: run `apt-get update` first."
        )
    return found[0]


def _cache() -> Path:
    given = os.environ.get("GPUHANDOFF_DESKTOP_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "gpuhandoff-desktop"


def _key(suite: str, packages: Sequence[str], files: Sequence[Path]) -> str:
    contents = b"".join(path.read_bytes() for path in files)
    made_of = (suite, sorted(packages), UNUSED, KEPT, OPTIONS, _PASSWD)
    return hashlib.sha256(repr(made_of).encode() + contents).hexdigest()[:16]


def _make(root: Path, suite: str, packages: Sequence[str]) -> None:
    command = (
        # Where it is killed, its mounts go with it: what they show must not be deleted when the next one clears up.
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        "--skip=check/empty",
        f"--keyring={KEYRING}",
        *(f"--aptopt={one}" for one in OPTIONS),
        *(f"--dpkgopt=path-exclude={one}" for one in UNUSED),
        *(f"--dpkgopt=path-include={one}" for one in KEPT),
        f"--include={','.join(packages)}",
        suite,
        str(root),
        f"deb {mirror()} {suite} main",
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mmdebstrap failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    for name, line in (("passwd", _PASSWD), ("group", _GROUP)):
        with (root / "etc" / name).open("a", encoding="utf-8") as file:
            file.write(line)
