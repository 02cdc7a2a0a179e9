"""CPUs, their governors, interrupts and unbound workqueues (kernel.md 6)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuhandoff.model.cpus import format_cpus, parse_cpus
from gpuhandoff.simulation.tree import failure

if TYPE_CHECKING:
    from gpuhandoff.simulation.machine import SimulatedMachine

CPUS = "/sys/devices/system/cpu"
WORKQUEUE = "/sys/devices/virtual/workqueue/cpumask"
GOVERNORS = ("performance", "powersave", "schedutil")


@dataclass(slots=True)
class Interrupt:
    """One interrupt line; a managed one (NVMe queues) cannot be moved."""

    name: str
    cpus: frozenset[int]
    managed: bool = False


class Processors:
    """The CPUs and what is steered to them."""

    def __init__(self, machine: SimulatedMachine, count: int) -> None:
        self._machine = machine
        self.present = frozenset(range(count))
        self.online = self.present
        self.governors = dict.fromkeys(sorted(self.online), "schedutil")
        self.workqueue = self.online
        self.default_affinity = self.online
        self.interrupts = {
            16: Interrupt("xhci_hcd", self.online),
            24: Interrupt("eth0", frozenset({0})),
            25: Interrupt("nvme0q1", frozenset({1}), managed=True),
            26: Interrupt("nvidia", self.online),
        }
        tree = machine.tree
        for name in ("possible", "present"):
            tree.text(f"{CPUS}/{name}", f"{format_cpus(self.present)}\n")
        tree.text(f"{CPUS}/online", lambda: f"{format_cpus(self.online)}\n")
        for cpu in sorted(self.present):
            self._add_governor(cpu)
            if cpu:  # the first one cannot go
                self._add_switch(cpu)
        tree.text(WORKQUEUE, lambda: f"{format_mask(self.workqueue)}\n", self._write_workqueue)
        tree.text("/proc/irq/default_smp_affinity", lambda: f"{format_mask(self.default_affinity)}\n", self._write_default)
        for number in self.interrupts:
            self._add_interrupt(number)

    def switch(self, cpus: frozenset[int]) -> None:
        """Have these CPUs online and no others.

        Interrupts that are left without any go to all that are online, those that the kernel manages wait for theirs; a CPU
        keeps its governor for its return, and AllowedCPUs stays as it is set (effective is what is online of it).
        """
        self.online = cpus
        for interrupt in self.interrupts.values():
            if not interrupt.managed and not interrupt.cpus & cpus:
                interrupt.cpus = cpus

    def _add_switch(self, cpu: int) -> None:
        path = f"{CPUS}/cpu{cpu}/online"

        def write(text: str) -> None:
            if text.strip() not in {"0", "1"}:
                raise failure(errno.EINVAL, path)
            self.switch(self.online | {cpu} if text.strip() == "1" else self.online - {cpu})

        self._machine.tree.text(path, lambda: f"{int(cpu in self.online)}\n", write)

    def _add_governor(self, cpu: int) -> None:
        path = f"{CPUS}/cpu{cpu}/cpufreq"

        def read() -> str:
            if cpu not in self.online:  # show() and store() of drivers/cpufreq/cpufreq.c: the policy is inactive
                raise failure(errno.EBUSY, f"{path}/scaling_governor")
            return f"{self.governors[cpu]}\n"

        def write(text: str) -> None:
            read()
            if text.strip() not in GOVERNORS:
                raise failure(errno.EINVAL, f"{path}/scaling_governor")
            self.governors[cpu] = text.strip()

        self._machine.tree.text(f"{path}/scaling_governor", read, write)
        self._machine.tree.text(f"{path}/scaling_available_governors", " ".join(GOVERNORS) + "\n")

    def _add_interrupt(self, number: int) -> None:
        path = f"/proc/irq/{number}"

        def write(text: str) -> None:
            self._move(number, self._parsed(text, parse_cpus, path, self.online))

        def write_mask(text: str) -> None:
            self._move(number, self._parsed(text, parse_mask, path, self.online))

        tree, interrupt = self._machine.tree, self.interrupts[number]
        tree.text(f"{path}/smp_affinity_list", lambda: f"{format_cpus(interrupt.cpus)}\n", write)
        tree.text(f"{path}/smp_affinity", lambda: f"{format_mask(interrupt.cpus)}\n", write_mask)
        tree.text(f"{path}/effective_affinity_list", lambda: f"{min(interrupt.cpus, default=0)}\n")
        tree.directory(f"{path}/{interrupt.name}")

    def _move(self, number: int, cpus: frozenset[int]) -> None:
        path, interrupt = f"/proc/irq/{number}/smp_affinity_list", self.interrupts[number]
        if interrupt.managed:
            refusals = ((6, 11), errno.EACCES), ((6, 2), errno.EPERM)
            raise failure(next((one for since, one in refusals if self._machine.newer_than(*since)), errno.EIO), path)
        if not cpus & self.online:
            raise failure(errno.EINVAL, path)
        interrupt.cpus = cpus

    def _write_workqueue(self, text: str) -> None:
        self.workqueue = self._parsed(text, parse_mask, WORKQUEUE, self.present) & self.present

    def _write_default(self, text: str) -> None:
        self.default_affinity = self._parsed(text, parse_mask, "/proc/irq/default_smp_affinity", self.online)

    def _parsed(self, text: str, parse: object, path: str, among: frozenset[int]) -> frozenset[int]:
        try:
            cpus = parse_mask(text) if parse is parse_mask else parse_cpus(text)
        except ValueError:
            raise failure(errno.EINVAL, path) from None
        if not cpus & among:
            raise failure(errno.EINVAL, path)
        return cpus


def parse_mask(text: str) -> frozenset[int]:
    """Parse the kernel's hexadecimal mask, groups of 32 bits separated by commas; raises ValueError."""
    value = 0
    for group in text.strip().split(","):
        value = value << 32 | int(group, 16)
    return frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)


def format_mask(cpus: frozenset[int]) -> str:
    """Return the hexadecimal mask."""
    value = sum(1 << cpu for cpu in cpus)
    groups = [f"{value & 0xFFFFFFFF:x}"]
    while value := value >> 32:
        groups[0] = groups[0].rjust(8, "0")
        groups.insert(0, f"{value & 0xFFFFFFFF:x}")
    return ",".join(groups)
