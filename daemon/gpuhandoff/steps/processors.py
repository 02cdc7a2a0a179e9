"""CPU settings outside cgroups: interrupts, unbound workqueues, frequency governors. Each is captured, set, restored."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Mapping

from gpuhandoff.host import Host
from gpuhandoff.model.cpus import parse_cpus

ONLINE = "/sys/devices/system/cpu/online"
PRESENT = "/sys/devices/system/cpu/present"
INTERRUPTS = "/proc/irq"
WORKQUEUES = "/sys/devices/virtual/workqueue/cpumask"
_IMMOVABLE = {errno.EACCES, errno.EIO, errno.EPERM, errno.EINVAL, errno.ENOSPC}
"""The kernel manages some interrupts itself, those of NVMe queues before all (kernel.md 6).

EACCES: 6.12 takes the owner's right to write away from those, and this daemon has no CAP_DAC_OVERRIDE (seen there).
"""


def online(host: Host) -> frozenset[int]:
    """Return the CPUs that are switched on."""
    return parse_cpus(host.kernel.read(ONLINE))


def present(host: Host) -> frozenset[int]:
    """Return the CPUs that can be switched on."""
    return parse_cpus(host.kernel.read(PRESENT))


def governor_path(cpu: int) -> str:
    """Return where a CPU's governor is set."""
    return f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"


def capture_interrupts(host: Host) -> dict[str, str]:
    """Return the affinity of every interrupt."""
    affinities = {}
    for number in host.kernel.entries(INTERRUPTS):
        with contextlib.suppress(OSError):
            affinities[number] = host.kernel.read(f"{INTERRUPTS}/{number}/smp_affinity_list").strip()
    return affinities


async def move_interrupts(host: Host, numbers: Collection[str], cpus: str) -> None:
    """Move what can be moved to these CPUs."""
    for number in numbers:
        await _write_affinity(host, number, cpus)


async def restore_interrupts(host: Host, affinities: Mapping[str, str]) -> None:
    """Set affinities back; interrupts that are gone, or never moved, are left."""
    for number, was in affinities.items():
        with contextlib.suppress(OSError):
            if host.kernel.read(f"{INTERRUPTS}/{number}/smp_affinity_list").strip() != was:
                await _write_affinity(host, number, was)


def read_attribute(host: Host, path: str) -> str | None:
    """Return an attribute, or None when this kernel has none."""
    try:
        return host.kernel.read(path).strip()
    except OSError:
        return None


async def set_governor(host: Host, cpu: int, governor: str) -> None:
    """Set a CPU's governor unless it has it already; one that is offline keeps what it had (EBUSY or EINVAL)."""
    path = governor_path(cpu)
    if read_attribute(host, path) not in {None, governor}:
        try:
            await host.kernel.write(path, governor)
        except OSError:
            if cpu in online(host):
                raise


async def restore_workqueues(host: Host, was: str, ours: frozenset[int]) -> None:
    """Set the CPUs of unbound workqueues back, unless somebody else has given them others meanwhile.

    Of those that were written the kernel leaves out isolated ones (isolcpus=).
    """
    now = read_attribute(host, WORKQUEUES)
    if now is not None and now != was and parse_mask(now) <= ours:
        await host.kernel.write(WORKQUEUES, was)


async def restore_governor(host: Host, cpu: int, was: str, ours: str) -> None:
    """Set a CPU's governor back, unless somebody else has set it meanwhile (power-profiles-daemon does)."""
    if read_attribute(host, governor_path(cpu)) == ours != was:
        await set_governor(host, cpu, was)


def mask(cpus: Collection[int]) -> str:
    """Return a CPU set in the kernel's mask format, groups of eight hexadecimal digits."""
    number = sum(1 << cpu for cpu in cpus)
    groups: list[str] = []
    while number or not groups:
        groups.append(f"{number & 0xFFFFFFFF:08x}")
        number >>= 32
    return ",".join(reversed(groups))


def parse_mask(text: str) -> frozenset[int]:
    """Return the CPUs of the kernel's mask format."""
    number = int(text.replace(",", ""), 16)
    return frozenset(cpu for cpu in range(number.bit_length()) if number >> cpu & 1)


async def _write_affinity(host: Host, number: str, cpus: str) -> None:
    try:
        await host.kernel.write(f"{INTERRUPTS}/{number}/smp_affinity_list", cpus)
    except OSError as error:
        if error.errno not in _IMMOVABLE:
            raise
