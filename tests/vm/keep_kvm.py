"""Runs inside the test host: an empty virtual machine that stays, so that KVM's first and last are not those of a test.

With the first and the last the kernel rewrites its scheduler (a static key, preempt_notifier_key) while the other processor
runs it. QEMU before 8.1 does not always notice that in what it has translated, and the test host panics in int3.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys

KVM_CREATE_VM = 0xAE01

machine = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC), KVM_CREATE_VM, 0)
if os.fork():
    sys.exit()
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(null, stream)
signal.pause()
