"""The process that makes workers, and what it has of the daemon's."""

from __future__ import annotations

import subprocess
import sys

INHERITED = """
import os, select
from gpuhandoff.workshop import Workshop
reader, writer = os.pipe()
os.set_inheritable(writer, True)
workshop = Workshop.start()
os.close(writer)
print("closed" if select.select([reader], [], [], 5)[0] else "open")
workshop.close()
os.wait()
"""


def test_what_the_service_manager_kept_for_the_daemon_ends_with_the_daemon_closing_it() -> None:
    done = subprocess.run([sys.executable, "-c", INHERITED], capture_output=True, text=True, check=True)
    assert done.stdout == "closed\n"
