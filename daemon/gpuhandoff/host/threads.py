"""The threads of a process whose first one has ended: what it has open goes on in the others' hands.

/proc/PID/fd and /proc/PID/maps are the first thread's. One that has ended has let go of its share (exit_files, exit_mm) and
stays a zombie for as long as the process lives: nothing is to be seen there.
"""

from __future__ import annotations

import os

_ALONE = 3
"""Links of /proc/PID/task with one thread in it: two as every directory has, and one a thread (fs/proc/base.c)."""


def others(pid: str) -> list[str]:
    """Return the directories in /proc of a process's threads but the first; none where that is the only one."""
    directory = f"/proc/{pid}/task"
    try:
        if os.stat(directory).st_nlink <= _ALONE:  # a quarter of what reading it costs: the kernel's own threads are many
            return []
        return [f"{directory}/{name}" for name in os.listdir(directory) if name != pid]
    except OSError:
        return []
