"""Inside the enclosed Debian: gpuhandoff-session, for the user whom the simulated machine calls alice."""

from __future__ import annotations

import pwd
import sys
from pathlib import Path
from unittest import mock

from gpuhandoff_session.__main__ import main
from gpuhandoff_session.daemon import Daemon

HELD = Path("/out/session-waits")
"""Is there once the daemon knows that handoffs have to wait for this desktop."""
inhibit = Daemon.inhibit


async def inhibited(self: Daemon) -> None:
    """Do what it does, and say so."""
    await inhibit(self)
    note()


def note() -> None:
    """Tell whoever waits for that."""
    HELD.touch()


with mock.patch.object(Daemon, "inhibit", inhibited), mock.patch.object(pwd, "getpwuid") as user:
    user.return_value.pw_name = "alice"
    sys.exit(main([]))
