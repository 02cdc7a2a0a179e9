"""The file that tells the libvirt hook which guests concern us, so that it makes no call for the others."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from gpuhandoff.hypervisor.patterns import patterns
from gpuhandoff.model.world import World

log = logging.getLogger(__name__)


class HookPatterns:
    """Writes the file whenever the GPUs are others than it says. It outlives the daemon, which the hook's call starts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written: str | None = None

    def look(self, world: World) -> None:
        """Write what the GPUs are, in one piece: a reader sees the old file or the new one."""
        text = patterns(world)
        if self._path is None or text == self._written:
            return
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                new.unlink()
            with open(new, "x", encoding="ascii", opener=_for_its_owner) as file:
                file.write(text)
            new.replace(self._path)
        except OSError as error:
            log.error("libvirt's hook does not learn of the GPUs: %s cannot be written: %s", self._path, error.strerror)
            return
        self._written = text


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
