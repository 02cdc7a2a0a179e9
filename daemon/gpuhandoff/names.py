"""Every well-known name of gpuhandoff: bus, paths, interfaces, errors, polkit actions, files, variables.

The command and other clients may import this module and nothing else of the daemon.
"""

from __future__ import annotations

BUS_NAME = "org.gpuhandoff.Manager"

ROOT_PATH = "/org/gpuhandoff"
MANAGER_PATH = "/org/gpuhandoff/Manager"
GPU_PATH_PREFIX = "/org/gpuhandoff/gpus/pci_"
JOB_PATH_PREFIX = "/org/gpuhandoff/jobs/"

MANAGER_INTERFACE = "org.gpuhandoff.Manager"
GPU_INTERFACE = "org.gpuhandoff.Gpu"
JOB_INTERFACE = "org.gpuhandoff.Job"
HYPERVISOR_INTERFACE = "org.gpuhandoff.Hypervisor"

ERROR_PREFIX = "org.gpuhandoff.Error."

ACTION_STATUS = "org.gpuhandoff.status"
ACTION_INSPECT = "org.gpuhandoff.inspect"
ACTION_HANDOFF = "org.gpuhandoff.handoff"
ACTION_HANDOFF_DISPLAY = "org.gpuhandoff.handoff-display"
ACTION_HANDOFF_OTHERS = "org.gpuhandoff.handoff-others"
ACTION_ACCEPT_RISK = "org.gpuhandoff.accept-risk"
ACTION_TERMINATE_HOLDERS = "org.gpuhandoff.terminate-holders"
ACTION_RECLAIM = "org.gpuhandoff.reclaim"
ACTION_EVICT_GUEST = "org.gpuhandoff.evict-guest"
ACTION_INHIBIT = "org.gpuhandoff.inhibit"

CONFIGURATION_FILE = "/etc/gpuhandoff/gpuhandoff.toml"
CONFIGURATION_DROP_INS = "/etc/gpuhandoff/conf.d"
RUNTIME_DIRECTORY = "/run/gpuhandoff"
HOOK_PATTERNS = "/run/gpuhandoff/hook-patterns"
"""Tells the libvirt hook which guests concern us."""
STATE_DIRECTORY = "/var/lib/gpuhandoff"

API_VERSION = 1
