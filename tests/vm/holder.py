"""Runs inside the test host: has a device node open, or no more than mapped, under a name and a user id, until it is killed.

usage: holder.py open|map NODE NAME UID
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import sys

CREATE_DUMB, MAP_DUMB = 0xC02064B2, 0xC01064B3
"""DRM_IOCTL_MODE_CREATE_DUMB and _MAP_DUMB: a buffer that every driver with a screen can make, and where to map it."""
READ_WRITE, SHARED, SET_NAME = 3, 1, 15

libc = ctypes.CDLL(None, use_errno=True)
way, node, name, uid = sys.argv[1:]
descriptor = os.open(node, os.O_RDWR)
if way == "map":
    buffer = bytearray(struct.pack("=IIIIIIQ", 64, 64, 32, 0, 0, 0, 0))
    fcntl.ioctl(descriptor, CREATE_DUMB, buffer)
    handle, _, size = struct.unpack_from("=IIQ", buffer, 16)
    place = bytearray(struct.pack("=IIQ", handle, 0, 0))
    fcntl.ioctl(descriptor, MAP_DUMB, place)
    (offset,) = struct.unpack_from("=Q", place, 8)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    if libc.mmap(None, size, READ_WRITE, SHARED, descriptor, offset) == ctypes.c_void_p(-1).value:
        sys.exit(f"mmap: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)
if os.getpid() != 1:  # the first process of a container takes the others along when it ends
    if os.fork():
        sys.exit()
    os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(null, stream)
os.setuid(int(uid))
# Named last: whoever sees the name may count on all the rest. /proc/self/comm is root's after setuid.
libc.prctl(SET_NAME, name.encode(), 0, 0, 0)
signal.pause()
