"""A simulated machine: hardware, kernel, processes, services, and the oracle that says what it looks like."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from gpuhandoff.messages import Bus
from gpuhandoff.simulation.buses import Buses
from gpuhandoff.simulation.catalogue import builtin_drivers, catalogue, nvidia_conf
from gpuhandoff.simulation.control_groups import ControlGroups
from gpuhandoff.simulation.descriptors import DescriptorStore
from gpuhandoff.simulation.disks import Disks
from gpuhandoff.simulation.faults import Faults
from gpuhandoff.simulation.functions import add_function
from gpuhandoff.simulation.graphics import Graphics
from gpuhandoff.simulation.kernel import Flying, SimulatedKernel
from gpuhandoff.simulation.lives import outside
from gpuhandoff.simulation.logind import SimulatedLogind
from gpuhandoff.simulation.loopback import LoopbackBroker
from gpuhandoff.simulation.memory import Memory
from gpuhandoff.simulation.modules import INSTALLS, Modules
from gpuhandoff.simulation.openings import SimulatedOpenings
from gpuhandoff.simulation.pci import PciBus, PciDevice
from gpuhandoff.simulation.polkit import SimulatedPolkit
from gpuhandoff.simulation.process import SimulatedProcess
from gpuhandoff.simulation.processes import SimulatedProcesses
from gpuhandoff.simulation.processors import Processors
from gpuhandoff.simulation.sessions import Sessions
from gpuhandoff.simulation.snapshot import take_snapshot
from gpuhandoff.simulation.sound import Sound
from gpuhandoff.simulation.systemd import SimulatedSystemd
from gpuhandoff.simulation.tree import Node, Tree
from gpuhandoff.simulation.uevents import SimulatedUevents
from gpuhandoff.simulation.units import Units
from gpuhandoff.simulation.usb import Usb
from gpuhandoff.simulation.vfio import Vfio
from gpuhandoff.simulation.waits import Waits

BOOT_ID = "3f0c2f4e-5d0a-4b57-9a39-0c6f7b1d2e88"
COMMAND_LINE = "BOOT_IMAGE=/boot/vmlinuz root=/dev/nvme0n1p2 ro quiet intel_iommu=on"
QEMU_CGROUP = "/machine.slice/machine-qemu-1-guest.scope"


class SimulatedMachine:
    """One machine; `gpuhandoff.simulation.scenarios` builds and boots them.

    Everything happens on the running event loop, by its clock.
    """

    def __init__(
        self,
        functions: Sequence[PciDevice],
        *,
        kernel_release: str = "6.12.107+deb13-amd64",
        nvidia_version: str = "",
        nvidia_flavour: str = "",
        iommu: bool = True,
        iommu_table: str = "DMAR",
        command_line: str = COMMAND_LINE,
        cpus: int = 8,
        memory: int = 16 << 30,
    ) -> None:
        self.kernel_release = kernel_release
        self.nvidia_version = nvidia_version
        self.nvidia_open = True
        self.iommu = iommu
        self.sys_admin = True
        """Whether the daemon has CAP_SYS_ADMIN, as its unit gives it."""
        self.direct_regions: dict[int, list[str]] = {}
        """What the firmware wants mapped, by IOMMU group, as lines of reserved_regions."""
        self.tree = Tree()
        self.waits = Waits()
        self.uevents = SimulatedUevents()
        self.faults = Faults()
        self.openings = SimulatedOpenings()
        self.descriptors = DescriptorStore()
        self.processes = SimulatedProcesses(self)
        self.control_groups = ControlGroups(self)
        self.memory = Memory(self, memory)
        self.processors = Processors(self, cpus)
        self.graphics = Graphics(self)
        self.sound = Sound(self)
        self.buses = Buses(self)
        self.vfio = Vfio(self)
        self.disks = Disks(self)
        self.usb = Usb(self)
        self.pci = PciBus(self)
        if nvidia_flavour:
            self.tree.text(INSTALLS, nvidia_conf(nvidia_flavour))
        self.modules = Modules(self, catalogue(nvidia_version, nvidia_flavour))
        self.units = Units(self)
        self.sessions = Sessions(self)
        self.operations: dict[asyncio.Task[object], Flying] = {}
        """What is under way in the kernel."""
        self.kernel = SimulatedKernel(self)
        self.systemd = SimulatedSystemd(self)
        self.logind = SimulatedLogind(self)
        self.polkit = SimulatedPolkit(self)
        self._background: set[asyncio.Task[Any]] = set()
        self.boot_id = BOOT_ID
        self.tree.text("/proc/sys/kernel/random/boot_id", lambda: f"{self.boot_id}\n")
        self.tree.text("/proc/sys/kernel/osrelease", f"{kernel_release}\n")
        self.tree.text("/proc/version", f"Linux version {kernel_release} (builder) #1 SMP PREEMPT_DYNAMIC\n")
        self.tree.text("/proc/cmdline", f"{command_line}\n")
        self.tree.text("/proc/self/status", lambda: f"Name:\tgpuhandoffd\nCapEff:\t{self._capabilities():016x}\n")
        if iommu_table:
            self.tree.text(f"/sys/firmware/acpi/tables/{iommu_table}", "")
        for device in functions:
            add_function(self, device)

    @property
    def override_takes_lock(self) -> bool:
        """Whether driver_override takes the device lock: until 6.12.90, and in all of 6.1 (kernel.md fact 7)."""
        return not self.newer_than(6, 12, 91)

    def newer_than(self, *version: int) -> bool:
        """Tell whether the kernel is of this version or a later one."""
        numbers = re.findall(r"\d+", self.kernel_release.split("+")[0].split("-")[0])
        return tuple(int(number) for number in numbers) >= version

    async def boot(self, modules: Iterable[str], units: Iterable[str]) -> None:
        """Load drivers and start units, in no time; from then on everything takes its time."""
        for driver in builtin_drivers(self):
            await self.pci.register(driver)
        for module in modules:
            await self.modules.load(module)
        for name in units:
            unit = self.units.find(name)
            if unit is not None:
                await self.units.start(unit)
        await self.settle()
        self.waits.pace = 1.0

    async def settle(self) -> None:
        """Wait until what is under way by itself has happened."""
        await self.waits.until(lambda: self.sound.settled, "")

    async def serve(self, broker: LoopbackBroker) -> None:
        """Have the stand-ins answer on a bus in this process, each with a connection of its own."""
        for stand_in in (self.systemd, self.logind, self.polkit):
            await stand_in.attach(broker.connect())

    async def attach(self, systemd: Bus, logind: Bus, polkit: Bus) -> None:
        """Have the stand-ins answer on any bus."""
        await self.systemd.attach(systemd)
        await self.logind.attach(logind)
        await self.polkit.attach(polkit)

    def snapshot(self) -> dict[str, Any]:
        """Return everything that can be observed, without pids and numbers that change from one start to the next."""
        return take_snapshot(self)

    def start_guest(self, gpu: str = "", *, pages: int = 0, private_dev: bool = False) -> SimulatedProcess:
        """Start a virtual machine with this GPU, or with none; raises the OSError that QEMU would meet."""
        node = self.vfio.open(self.pci.at(gpu).group) if gpu else None
        self.control_groups.add(QEMU_CGROUP)
        guest = self.processes.spawn("qemu-system-x86", uid=64055, cgroup=QEMU_CGROUP, memory=4 << 30)
        guest.private_dev = private_dev
        if node is not None:
            self._take(guest, node)
        self.memory.pages_used += pages
        guest.on_end.append(lambda: self._pages_returned(pages))
        return guest

    def plug(self, guest: SimulatedProcess, gpu: str) -> None:
        """Give a virtual machine that runs a GPU (virsh attach-device); raises the OSError that QEMU would meet."""
        self._take(guest, self.vfio.open(self.pci.at(gpu).group))

    def unplug(self, guest: SimulatedProcess, gpu: str) -> None:
        """Take a GPU out of a virtual machine, which runs on (virsh detach-device)."""
        self.processes.close(guest, f"/dev/vfio/{self.pci.at(gpu).group}")
        self.processes.close(guest, self.vfio.container.path)

    def stop_guest(self, gpu: str) -> None:
        """End the virtual machine that has this GPU."""
        for process in self.processes.with_path(f"/dev/vfio/{self.pci.at(gpu).group}"):
            self.processes.end(process.pid)

    def display_nodes(self, gpus: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes that a compositor opens to show its picture with these GPUs."""
        paths: list[str] = []
        for address in gpus:
            device = self.pci.devices[address]
            paths += [node.path for node in self.graphics.nodes_of(device)]
            if paths and device.driver is not None and device.driver.name == "nvidia":
                own = [node.path for node in self.tree.nodes() if node.device == device.path and node.module == "nvidia"]
                paths += [
                    *(path for path in own if path.startswith("/dev/nvidia")),
                    "/dev/nvidiactl",
                    "/dev/nvidia-modeset",
                ]
        return tuple(paths)

    def add_node(self, node: Node, path: str, class_link: str) -> None:
        """Name a device node: in /dev, in its class, by number."""
        self.tree.add(node.path, node)
        self.tree.link(class_link, path)
        self.tree.link(f"/sys/dev/char/{_numbers(node)}", path)
        self.processes.appeared(node)

    def remove_node(self, node: Node, class_link: str) -> None:
        """Take a device node's names away; whoever has it open keeps it."""
        self.tree.remove(node.path)
        self.tree.remove(class_link)
        self.tree.remove(f"/sys/dev/char/{_numbers(node)}")
        self.processes.vanished(node)

    def process_ended(self, process: SimulatedProcess) -> None:
        """Let services and sessions notice that a process is gone."""
        self.units.process_ended(process)
        self.sessions.process_ended(process)

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work, context=outside())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def lowest_free(self, taken: Iterable[int]) -> int:
        """Return the lowest number that is not taken, as the kernel numbers cards and buses."""
        numbers = set(taken)
        return next(number for number in range(len(numbers) + 1) if number not in numbers)

    def _take(self, guest: SimulatedProcess, node: Node) -> None:
        for one in (self.vfio.container, node):
            self.processes.hold(guest, one)

    def _capabilities(self) -> int:
        """DAC_READ_SEARCH, KILL, SYS_MODULE, SYS_PTRACE, SYS_ADMIN."""
        return 1 << 2 | 1 << 5 | 1 << 16 | 1 << 19 | self.sys_admin << 21

    def _pages_returned(self, pages: int) -> None:
        self.memory.pages_used -= pages


def _numbers(node: Node) -> str:
    return f"{node.number >> 8}:{node.number & 0xFF}" if node.number < 1 << 16 else f"{node.number >> 8}:0"
