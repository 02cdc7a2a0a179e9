"""What outlives a desktop: up to which move it has been told how it went. One small file in the user's state directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gpuhandoff_session.aftermath import Told

VERSION = 1


class Memory:
    """The file. What cannot be read was never written; what cannot be written is told once more, at worst."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Told | None:
        """Return what was kept; None where there is nothing, or nothing that can be understood."""
        try:
            kept = json.loads(self._path.read_text())
            if kept["version"] != VERSION:
                return None
            return Told(int(kept["since"]), {str(card): int(began) for card, began in kept["cards"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, told: Told) -> None:
        """Keep it, for its owner alone. Raises OSError."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = self._path.with_suffix(".new")
        document = {"version": VERSION, "since": told.since, "cards": dict(told.cards or {})}
        with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(document, file)
        written.replace(self._path)


def state_file() -> Path:
    """Return where it is."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local/state") / "gpuhandoff/session.json"
