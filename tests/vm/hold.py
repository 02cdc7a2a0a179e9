"""Runs inside the test host: has a device node open where no scan finds it, until it is told to show that.

usage: hold.py NODE NAME

The descriptor is on its way over a socket and in nobody's table. SIGUSR1: it is received, which everybody can see. SIGTERM:
it is closed. The process calls itself NAME; it prints its pid and goes to the background.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

node, name = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
sending, receiving = socket.socketpair()
descriptor = os.open(node, os.O_RDONLY)
socket.send_fds(sending, [b"x"], [descriptor])
os.close(descriptor)
pid = os.fork()
if pid:
    print(pid)  # noqa: T201
    sys.exit()
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(null, stream)
Path("/proc/self/comm").write_text(name)
signal.sigwait({signal.SIGUSR1})
socket.recv_fds(receiving, 1, 1)
signal.pause()
